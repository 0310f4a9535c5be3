"""libcurl alone: its multi interface in one process, answers parsed and compared, nothing kept. The least that asking can cost from Python.

Takes orders as bench/peers do, in the product's environment, which has pycurl.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import orjson
import pycurl

UPSTREAM, IN_FLIGHT = os.environ["BENCH_UPSTREAM"], int(os.environ["BENCH_IN_FLIGHT"])
HEADERS = ["Accept: application/json", "Content-Type: application/json", "Authorization: Bearer key"]


class Transfer:
    """One reused handle."""

    def __init__(self) -> None:
        self.curl = pycurl.Curl()
        self.curl.setopt(pycurl.HTTPHEADER, HEADERS)
        self.curl.setopt(pycurl.NOSIGNAL, 1)
        self.curl.setopt(pycurl.CAINFO, os.environ["BENCH_CA"])

    def aim(self, task_id: str) -> None:
        self.task_id, self.body = task_id, BytesIO()
        self.curl.setopt(pycurl.URL, f"{UPSTREAM}/luma/generations/{task_id}")
        self.curl.setopt(pycurl.WRITEDATA, self.body)


def ask(multi: pycurl.CurlMulti, idle: list[Transfer], waiting: Iterator[str], states: dict[str, str]) -> None:
    """Ask about all, IN_FLIGHT at once."""
    flying: dict[pycurl.Curl, Transfer] = {}
    while True:
        while idle and (task_id := next(waiting, None)):
            transfer = idle.pop()
            transfer.aim(task_id)
            multi.add_handle(transfer.curl)
            flying[transfer.curl] = transfer
        if not flying:
            return
        multi.perform()
        left, done, failed = multi.info_read(1000)
        for curl in [*done, *(one[0] for one in failed)]:
            transfer = flying.pop(curl)
            multi.remove_handle(curl)
            states[transfer.task_id] = orjson.loads(transfer.body.getvalue())["state"]
            idle.append(transfer)
        if not (done or failed or left):
            multi.select(0.1)


def main() -> None:
    ids = Path(os.environ["BENCH_IDS"]).read_text().split()
    multi, idle, states = pycurl.CurlMulti(), [Transfer() for _ in range(IN_FLIGHT)], {}
    multi.setopt(pycurl.M_MAXCONNECTS, IN_FLIGHT)
    print("ready", flush=True)
    for line in sys.stdin:
        _, first, count = line.split()
        ask(multi, idle, iter(ids[int(first) : int(first) + int(count)]), states)
        print("done", flush=True)


if __name__ == "__main__":
    main()
