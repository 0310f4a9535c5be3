# ruff: noqa: INP001, T201, TID251 - an example for other people's programs
"""A webhook receiver, to be started with `WEBHOOK_SECRET=whsec_... PORT=8080 python receiver.py`.

With TRACKER_URL and TRACKER_KEY set it also asks for a link that anybody can open to each stored copy.
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

from tracker.client import SignatureError, verify_webhook

SECRET = os.environ["WEBHOOK_SECRET"]
API, KEY = os.environ.get("TRACKER_URL"), os.environ.get("TRACKER_KEY")
seen: set[str] = set()  # in production: a table with a unique key, written in the transaction that does the work
newest: dict[str, int] = {}


def take(webhook_id: str, event: dict) -> None:
    """Do the work once, and never go back to an older state."""
    if webhook_id in seen:
        return
    seen.add(webhook_id)
    data = event["data"]
    if data.get("sequence", 1) < newest.get(data.get("id"), 0):
        print(f"stale {event['type']}", flush=True)
        return
    if "sequence" in data:
        newest[data["id"]] = data["sequence"]
    print(f"event {event['type']} {data.get('id', '')}", flush=True)
    if event["type"] == "artifact.stored" and API:
        copy = data["artifact"]
        path = f"{API}/v1/generations/{data['id']}/artifacts/{copy['kind']}/link"
        link = requests.post(path, headers={"Authorization": f"Bearer {KEY}"}, json={}, timeout=10).json()
        print(f"link {link['url']}", flush=True)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(
            int(self.headers["Content-Length"])
        )  # the bytes as they came: never parse before verifying
        try:
            event = verify_webhook(SECRET, dict(self.headers), body)
        except SignatureError as wrong:
            print(f"refused: {wrong}", flush=True)
            self.send_response(400)
        else:
            take(self.headers["webhook-id"], event)
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()
