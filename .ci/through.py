"""Run inside the API's container by `make compose-test`: one generation, from submit to the stored copy and the received webhooks."""

# ruff: noqa: INP001 - a script, not a package
from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import queue
import socket
import sys
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tracker.client import Tracker

SIMULATOR = "http://simulator:8787"
API = "http://127.0.0.1:8000"
KEY = os.environ["TRACKER_BOOTSTRAP_API_KEY"]
AWAITED = {"generation.completed", "artifact.stored", "artifacts.done"}


def call(method: str, url: str, body: dict[str, Any] | None, bearer: str) -> dict[str, Any]:
    """One JSON call."""
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, headers, method=method)  # noqa: S310 - fixed http addresses
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found


def receiver(secret: str) -> tuple[str, queue.Queue[str]]:
    """Where another container can send webhooks to, and the types of those that come with the right signature."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    types: queue.Queue[str] = queue.Queue()

    class Incoming(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
            expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
            good = hmac.compare_digest(self.headers["webhook-signature"], expected)
            self.send_response(204 if good else 400)
            self.end_headers()
            types.put(json.loads(body)["type"] if good else "a wrong signature")

    server = ThreadingHTTPServer(("0.0.0.0", 0), Incoming)  # noqa: S104 - other containers send to it
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://{socket.gethostbyname(socket.gethostname())}:{server.server_port}/hook", types


call("PUT", f"{API}/v1/credentials/default", {"providers": ["luma"], "base_url": SIMULATOR, "api_key": "any"}, KEY)
hook, came = receiver(call("GET", f"{API}/v1/secret", None, KEY)["secret"])
task = call("POST", f"{SIMULATOR}/luma/generations", {"user_prompt": "a boat"}, "any")["id"]
with Tracker(API, KEY) as tracker:
    made = tracker.register("luma", task, download=["video"], webhook_url=hook)
    done = tracker.wait(made["id"], timeout=120)
    copy = tracker.download(made["id"], to=tempfile.gettempdir())
got = {came.get(timeout=30) for _ in AWAITED}
sys.stdout.write(
    f"{done['id']} is {done['state']}; its video has {copy.stat().st_size:,} bytes; webhooks: {', '.join(sorted(got))}\n"
)
sys.exit(done["state"] != "completed" or got != AWAITED)
