# ruff: noqa: INP001, T201, TID251 - an example for other people's programs
"""A webhook receiver, to be started with `WEBHOOK_SECRET=whsec_... PORT=8080 python receiver.py`.

With TRACKER_URL and TRACKER_KEY set it also asks for a link that anybody can open to each stored copy.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

import requests

from tracker.client import SignatureError, verify_webhook

SECRET = os.environ.get("WEBHOOK_SECRET", "")
API, KEY = os.environ.get("TRACKER_URL"), os.environ.get("TRACKER_KEY")
LONGEST_BODY = 1 << 20
lock = Lock()
done: set[str] = set()  # in production: a table with a unique key, written in the transaction that does the work
newest: dict[str, int] = {}


def take(webhook_id: str, event: dict) -> None:
    """Do the work once. The id is kept when it is done: an event whose work fails must be welcome when it comes again."""
    with lock:
        if webhook_id not in done:
            work(event["type"], event["data"])
            done.add(webhook_id)


def work(type_: str, data: dict) -> None:
    """What your program does. An older state never replaces a newer one; an event of an artifact is about that copy alone."""
    if "sequence" in data:
        newest[data["id"]] = max(data["sequence"], newest.get(data["id"], 0))
        if type_.startswith("generation.") and data["sequence"] < newest[data["id"]]:
            print(f"stale {type_}", flush=True)
            return
    if type_ == "artifact.stored" and API:
        print(f"link {link(data['id'], data['artifact'])}", flush=True)
    print(f"event {type_} {data.get('id', '')}", flush=True)


def link(generation_id: str, copy: dict) -> str:
    """A link to a stored copy that needs no key."""
    path = f"{API}/v1/generations/{generation_id}/artifacts/{copy['kind']}/{copy['index']}/link"
    answer = requests.post(path, headers={"Authorization": f"Bearer {KEY}"}, json={}, timeout=10)
    answer.raise_for_status()
    return answer.json()["url"]


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), LONGEST_BODY)
        self.send_response(self.answer(self.rfile.read(length)))
        self.end_headers()

    def answer(self, body: bytes) -> int:  # the bytes as they came: never parse before verifying
        try:
            event = verify_webhook(SECRET, dict(self.headers), body)
        except SignatureError as wrong:
            print(f"refused: {wrong}", flush=True)
            return 400
        try:
            take(self.headers["webhook-id"], event)
        except Exception as trouble:  # noqa: BLE001 - whatever it was, the sender tries again
            print(f"trouble: {trouble}", flush=True)
            return 500
        return 204  # only now: what is answered never comes again

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    if not SECRET.removeprefix("whsec_"):
        sys.exit("WEBHOOK_SECRET is not set: anybody could sign with an empty one")
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()
