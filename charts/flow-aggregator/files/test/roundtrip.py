"""helm test: two flows are POSTed through the gateway and read back, and a repeat of the POST counts nothing."""

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request

URL = os.environ["URL"]
HOUR = int(os.environ["HOUR"])
DEADLINE = time.monotonic() + float(os.environ["TIMEOUT_SECONDS"])
TOKEN = os.environ.get("TOKEN", "")
FLOW = {"src_app": "helm-test", "dest_app": "helm-test", "vpc_id": "helm-test", "hour": HOUR, "bytes_tx": 1, "bytes_rx": 3}


def ask(path, body=None, headers=None):
    """The answer, asked for again until it is 200; an answer of 4xx ends the test. A read has to be fresh."""
    given = dict(headers or {})
    if TOKEN:
        given["Authorization"] = f"Bearer {TOKEN}"
    while True:
        try:
            request = urllib.request.Request(URL + path, body, given)
            with urllib.request.urlopen(request, timeout=20) as reply:
                if body is not None or reply.headers["Flowagg-Fresh"] == "true":
                    return json.load(reply)
                trouble = "the answer is not fresh yet"
        except urllib.error.HTTPError as error:
            trouble = f"{error.code} {error.read().decode(errors='replace')}"
            if error.code < 500:
                sys.exit(f"{path}: {trouble}")
        except OSError as error:
            trouble = str(error)
        if time.monotonic() > DEADLINE:
            sys.exit(f"{path}: {trouble}")
        time.sleep(0.5)


def totals():
    """Bytes sent and received of the test's flow key."""
    rows = ask(f"/flows?hour={HOUR}")
    return next(((r["bytes_tx"], r["bytes_rx"]) for r in rows if r["src_app"] == "helm-test"), (0, 0))


before = totals()
body = json.dumps([FLOW, FLOW]).encode()
headers = {"Content-Type": "application/json", "Idempotency-Key": f"helm-test-{secrets.token_hex(16)}"}
for attempt in ("POST", "the same POST again"):
    accepted = ask("/flows", body, headers)["accepted"]
    after = totals()
    print(f"{attempt}: accepted {accepted}, totals of hour {HOUR} {before} -> {after}")
    if (after[0] - before[0], after[1] - before[1]) != (2, 6):
        sys.exit("the totals should have grown by (2, 6)")
