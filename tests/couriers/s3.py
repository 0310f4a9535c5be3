"""A local S3 server for the tests: moto's, run as a process of its own.

It is looked for in this environment; TRACKER_TEST_MOTO_PYTHON names another interpreter that has it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tracker.embedded.ports import free_port, release

BUCKET = "copies"
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


def interpreter() -> str:
    """The Python that has moto's server; skips where there is none."""
    given = os.environ.get("TRACKER_TEST_MOTO_PYTHON")
    if given:
        return given
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        pytest.skip("the tests against S3 need moto[server], here or at TRACKER_TEST_MOTO_PYTHON")
    return sys.executable


def running() -> Iterator[int]:
    """The port of an S3 server with one empty bucket."""
    port = free_port(18900)
    command = [interpreter(), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _answered(port, process)
        call(port, "PUT", f"/{BUCKET}")
        yield port
    finally:
        process.terminate()
        process.wait(10)
        release(port)


def _answered(port: int, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        try:
            call(port, "GET", "/moto-api/")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("moto's server does not answer")


def call(port: int, method: str, path: str) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


def unfinished(port: int) -> int:
    """How many uploads are begun and neither complete nor aborted."""
    return call(port, "GET", f"/{BUCKET}?uploads").count("<Upload>")
