"""Runs the orders of `cargo xtask e2e`: an order by its price ends in each way that a job can end."""

import json
import sys

ERROR = {"code": "card_declined", "message": "the bank said no", "data": {"tries": 1}}

for line in sys.stdin:
    header = json.loads(line)
    for _ in range(header["jobs"]):
        job = json.loads(sys.stdin.readline())
        data = job.get("data")
        # Beside the route, whose schema sees to it, anybody may submit anything.
        price = data.get("price") if isinstance(data, dict) else None
        price = price if isinstance(price, int) else 2
        outcome = {"id": job["id"]}
        if price % 4 == 0:
            outcome["error"] = ERROR
        elif price % 4 == 1:
            outcome["error"] = ERROR | {"code": "bank_down", "retryable": True}
        else:
            outcome["ok"] = {"charged": price}
        print(json.dumps(outcome), flush=True)
