"""The command: ready soon, ended at once, clear when it cannot start, https when asked."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import trustme

from tracker.simulator.misbehaviour import MISBEHAVIOURS

ROOT = Path(__file__).parents[2]


def command(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracker.simulator", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_it_is_ready_soon_and_sigterm_ends_it_at_once(run_simulator):
    began = time.monotonic()
    with run_simulator() as relay:
        assert time.monotonic() - began < 5
        hanging = requests.Session()
        with pytest.raises(requests.Timeout):
            hanging.get(f"{relay.url}/luma/generations/hang-1", headers={"Authorization": "Bearer x"}, timeout=0.3)
        relay.query(relay.create(duration=0))
        began = time.monotonic()
        relay.child.send_signal(signal.SIGTERM)
        assert relay.child.wait(10) == 0
        assert time.monotonic() - began < 3
        hanging.close()


def test_a_taken_port_is_one_clear_line(relay):
    found = command("--port", str(relay.port))
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr.startswith(f"--port: cannot listen on 127.0.0.1:{relay.port} (")
    assert found.stderr.endswith("choose another, or 0 for a free one\n")
    assert found.stderr.count("\n") == 1


def test_a_missing_certificate_is_one_clear_line():
    found = command("--port", "0", "--tls", "/nowhere/cert.pem", "/nowhere/key.pem")
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
    assert found.stderr.startswith("--tls: cannot load /nowhere/cert.pem")


@pytest.mark.parametrize(
    "options", [("--speed", "0"), ("--failures", "2"), ("--batch", "cube"), ("--not-found", "500")]
)
def test_wrong_options_are_refused(options):
    assert command(*options).returncode == 2


def test_the_list_names_every_misbehaviour():
    found = command("--list")
    assert found.returncode == 0
    assert [line.split()[0] for line in found.stdout.splitlines()] == list(MISBEHAVIOURS)


def test_https(run_simulator, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with run_simulator("--tls", str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")) as relay:
        relay.session.verify = str(tmp_path / "ca.pem")
        task_id = relay.create(duration=0)
        url = relay.query(task_id).json()["video"]["url"]
        assert url == f"{relay.url}/files/{task_id}/video.mp4"
        assert url.startswith("https://")
        assert relay.get(url).status_code == 200
        with pytest.raises(requests.ConnectionError):
            relay.query(relay.create(misbehaviour="reset"))
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            relay.query(relay.create(misbehaviour="halfclose"))


def test_the_failures_option_fails_a_share(run_simulator):
    with run_simulator("--failures", "1", "--speed", "1000") as relay:
        task_id = relay.post("/luma/generations", {"user_prompt": "x"}).json()["id"]
        relay.advance(10)
        found = relay.query(task_id).json()
        assert found["state"] == "failed"
        assert found["failure_reason"]
