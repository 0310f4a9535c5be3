"""`python -m tracker.api` as a process: it starts, refuses an old schema, and stops within its bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tracker.embedded.ports import free_port, release

ROOT = Path(__file__).parents[2]


@pytest.fixture
def port() -> Iterator[int]:
    found = free_port(18400)
    yield found
    release(found)


def _environment(settings: Any, port: int, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRACKER_")}
    secret = {
        name: settings.required(name) for name in ("database_url", "redis_url", "secret_keys", "bootstrap_api_key")
    }
    ours = {f"TRACKER_{name.upper()}": value for name, value in secret.items()}
    return {**inherited, **ours, "TRACKER_HOME": str(settings.home), "TRACKER_API_PORT": str(port), **more}


def _start(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tracker.api"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _answers(url: str, process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        assert process.poll() is None, process.communicate()
        try:
            if requests.get(url + "/readyz", timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("it did not start")


def test_it_starts_with_its_key_and_credentials_and_stops_in_time(settings: Any, port: int) -> None:
    environment = _environment(
        settings,
        port,
        TRACKER_LUMA_API_KEY="sk-from-the-environment",
        TRACKER_INTERNAL_SIMULATOR_URL="http://127.0.0.1:9",
    )
    process = _start(environment)
    url, key = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {settings.required('bootstrap_api_key')}"}
    _answers(url, process)
    names = [
        (c["name"], c["from_environment"])
        for c in requests.get(url + "/v1/credentials", headers=key, timeout=10).json()["data"]
    ]
    assert names == [("default", True), ("simulator", True)]
    made = requests.post(
        url + "/v1/generations", json={"provider": "luma", "task_id": "t"}, headers=key, timeout=10
    ).json()
    # A stop must not wait for those who wait, nor for streams.
    stream = requests.get(url + "/v1/events", headers={**key, "Accept": "text/event-stream"}, stream=True, timeout=30)
    assert next(stream.iter_lines()) == b"retry: 1000"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=20)
    assert time.monotonic() - began < 8
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert "POST /v1/generations 201" in told
    assert made["id"].startswith("gen_")
    for secret in (settings.required("bootstrap_api_key"), "sk-from-the-environment"):
        assert secret not in told


def test_an_old_schema_stops_the_start(settings: Any, empty_database_url: str, port: int) -> None:
    process = _start(_environment(settings, port, TRACKER_DATABASE_URL=empty_database_url))
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "tracker migrate" in told
    assert "Traceback" not in told


def test_a_missing_setting_stops_the_start_with_one_line(settings: Any, port: int) -> None:
    process = _start(_environment(settings, port, TRACKER_SECRET_KEYS=""))
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert told.count("\n") == 1
    assert told.startswith("TRACKER_SECRET_KEYS: is not set")


def test_a_database_that_is_away_stops_the_start_with_one_line(settings: Any, port: int) -> None:
    process = _start(
        _environment(settings, port, TRACKER_DATABASE_URL="postgresql://tracker:secret-word@127.0.0.1:1/tracker")
    )
    _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    assert told.count("\n") == 1
    assert "database" in told
    assert "secret-word" not in told


def test_a_port_that_is_taken_stops_the_start(settings: Any, api: Any) -> None:
    taken = int(api.url.rpartition(":")[2])
    process = _start(_environment(settings, taken))
    _, told = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "Traceback" not in told
