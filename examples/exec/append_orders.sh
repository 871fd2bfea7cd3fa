#!/usr/bin/env bash
# A plain script behind jitney: it gets one batch on standard input and does it. Exit code 0 means that all of it is
# done; any other, that the batch failed: jitney splits it, so that one bad order does not fail the others.
#
#   jitney work orders --once --exec 'examples/exec/append_orders.sh orders.log'
set -euo pipefail

read -r header # {"v":1,"batch":"...","jobs":3,"expires_at":"..."}
batch=""
while IFS= read -r job; do # {"id":"...","group":"order","attempt":1,"data":{...},...}
    if [[ $job != *'"price":'* ]]; then
        echo "no price in: ${job:0:60}" >&2 # to jitney's log, with the worker's name
        exit 1
    fi
    batch+="$job"$'\n'
done

# Jobs are processed at least once: a second delivery appends its order again, and readers go by its id.
printf '%s' "$batch" >>"$1"
