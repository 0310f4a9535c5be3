"""Run inside the API's container by `make compose-test`: one generation, from submit to the stored copy."""

# ruff: noqa: INP001 - a script, not a package
from __future__ import annotations

import json
import os
import sys
import tempfile
import urllib.request
from typing import Any

from tracker.client import Tracker

SIMULATOR = "http://simulator:8787"
API = "http://127.0.0.1:8000"
KEY = os.environ["TRACKER_BOOTSTRAP_API_KEY"]


def call(method: str, url: str, body: dict[str, Any], bearer: str) -> dict[str, Any]:
    """One JSON call."""
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)  # noqa: S310 - fixed http addresses
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found


call("PUT", f"{API}/v1/credentials/default", {"providers": ["luma"], "base_url": SIMULATOR, "api_key": "any"}, KEY)
task = call("POST", f"{SIMULATOR}/luma/generations", {"user_prompt": "a boat"}, "any")["id"]
with Tracker(API, KEY) as tracker:
    made = tracker.register("luma", task, download=["video"])
    done = tracker.wait(made["id"], timeout=120)
    copy = tracker.download(made["id"], to=tempfile.gettempdir())
    sys.stdout.write(f"{done['id']} is {done['state']}; its video has {copy.stat().st_size:,} bytes\n")
    sys.exit(done["state"] != "completed")
