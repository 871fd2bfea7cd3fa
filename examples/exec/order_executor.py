#!/usr/bin/env python3
"""Executes orders in batches: a program for `jitney work --exec`.

Python 3 and its standard library are all it needs. The lines that it reads and
writes are described in docs/exec_protocol.md.
"""

import json
import sys


def execute(order):
    """Approves an order, or says why not."""
    if not isinstance(order, dict):
        raise ValueError("an order is an object")
    price = order.get("price")
    if isinstance(price, bool) or not isinstance(price, (int, float)) or price < 0:
        raise ValueError("an order has a price of 0 or more")
    return {**order, "status": "approved"}


def outcome_of(job):
    """One outcome line for one job. A job can come twice: its id says which it is."""
    try:
        return {"id": job["id"], "ok": execute(job.get("data"))}
    except ValueError as error:
        # The order is wrong, and will be the next time: no second try.
        return {
            "id": job["id"],
            "error": {"code": "bad_order", "message": str(error), "retryable": False},
        }


def read_batches(lines):
    """Each batch is a header line that says how many job lines follow."""
    for line in lines:
        header = json.loads(line)
        jobs = []
        for line in lines:
            jobs.append(json.loads(line))
            if len(jobs) == header["jobs"]:
                break
        # At the end of input the last batch may be short: do what is here.
        yield header, jobs


def main():
    # Both are UTF-8, whatever the locale says.
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8")
    for header, jobs in read_batches(sys.stdin):
        print(f"batch {header['batch']}: {len(jobs)} orders", file=sys.stderr)
        for job in jobs:
            # Flushed, so that this caller need not wait for the others of the batch.
            print(json.dumps(outcome_of(job)), flush=True)


if __name__ == "__main__":
    main()
