"""`tracker listen` as a developer runs it: real deliveries of the real sender, forgeries, and programs behind it that answer, refuse or are down."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from standardwebhooks.webhooks import Webhook

from tracker.core import ids, signing
from tracker.wiring import Services


class Program:
    """What a developer is writing: keeps what it gets, and answers as the test wants."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status, self.body, self.headers, self.url = 200, b"thanks", {"Retry-After": "7"}, ""


@pytest.fixture
def program() -> Iterator[Program]:
    kept = Program()

    class Incoming(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            kept.got.append((dict(self.headers.items()), self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(kept.status)
            for name, value in kept.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(kept.body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Incoming)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_address[1]}/hooks?from=tracker"
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


class Listening:
    """A running `tracker listen --json`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.lines = (json.loads(line) for line in process.stdout)
        self.began = next(self.lines)

    def post(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        with closing(
            http.client.HTTPConnection("127.0.0.1", urlsplit(self.began["listening"]).port, timeout=20)
        ) as connection:
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def ends(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        _, wrong = self.process.communicate(timeout=20)
        assert (self.process.returncode, wrong) == (0, "")


@pytest.fixture
def listening(cli: Any) -> Iterator[Callable[..., Listening]]:
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Listening:
        started.append(cli.starts("listen", "--json", *options))
        return Listening(started[-1])

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=20)


def deliveries(services: Services) -> list[Any]:
    return services.deliveries.page(services.keys.project().project_id, None, 100)[0]


def attempts(services: Services) -> list[Any]:
    project = services.keys.project().project_id
    return [a for row in deliveries(services) for a in services.deliveries.get(project, row.id)[1]]


def test_a_real_delivery_is_verified_printed_and_answered(
    cli: Any, services: Services, listening: Callable[..., Listening], registered: Callable[..., dict[str, Any]]
) -> None:
    listens = listening("--events", "generation.cancelled,generation.failed", "--tag", "mine")
    [endpoint] = cli.json("endpoints", "list")["data"]
    assert endpoint["id"] == listens.began["endpoint_id"]
    assert (endpoint["url"], endpoint["tags"]) == (listens.began["listening"], ["mine"])
    assert endpoint["events"] == ["generation.cancelled", "generation.failed"]
    Webhook(listens.began["secret"])
    for n, tag in enumerate(("other", "mine")):
        cli("cancel", registered(f"task-{n}", "--tag", tag)["id"])
    services.delivery.send_due()
    told = next(listens.lines)
    assert (told["verified"], told["status"], told["forward"], told["refused"]) == (True, 204, None, None)
    assert (told["event"]["type"], told["event"]["data"]["task_id"]) == ("generation.cancelled", "task-1")
    assert told["webhook_id"].startswith("evt_")
    [delivery] = deliveries(services)
    assert delivery.state == "delivered"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_its_endpoint_is_gone_however_it_is_told_to_end(
    cli: Any, listening: Callable[..., Listening], number: signal.Signals
) -> None:
    listens = listening()
    assert [e["id"] for e in cli.json("endpoints", "list")["data"]] == [listens.began["endpoint_id"]]
    listens.ends(number)
    assert cli.json("endpoints", "list")["data"] == []


def test_its_endpoint_is_gone_when_nobody_reads_its_lines_any_more(
    cli: Any, listening: Callable[..., Listening]
) -> None:
    listens = listening()
    assert listens.process.stdout is not None
    listens.process.stdout.close()
    assert listens.post({}, b"one line")[0] == 400
    assert listens.process.wait(20) == 1
    assert cli.json("endpoints", "list")["data"] == []
    assert listens.process.stderr is not None
    assert listens.process.stderr.read() == ""
    listens.process.stderr.close()


def test_what_is_forged_altered_or_old_is_refused_and_not_passed_on(
    listening: Callable[..., Listening], program: Program
) -> None:
    listens = listening("--forward", program.url)
    secret, body, now = listens.began["secret"], b'{"type":"ping","data":{}}', int(time.time())
    forged = [
        signing.headers([signing.new_secret()], "evt_1", now, body),
        signing.headers([secret], "evt_1", now, body + b" "),
        signing.headers([secret], "evt_1", now - 3600, body),
        {},
    ]
    for headers in forged:
        assert listens.post(headers, body)[0] == 400
        told = next(listens.lines)
        assert (told["verified"], told["status"], told["event"]) == (False, 400, None)
        assert told["refused"]
    assert program.got == []
    no_json = signing.headers([secret], "evt_1", now, b"signed, and no JSON")
    assert listens.post(no_json, b"signed, and no JSON")[0] == 400
    assert listens.post({"Content-Length": "9" * 12}, b"")[0] == 413
    good = signing.headers([signing.new_secret(), secret], "evt_1", now, body)
    assert listens.post(good, body)[0] == 200, "either signature of a rotation will do"
    assert len(program.got) == 1


def test_the_same_bytes_and_headers_go_on_and_the_answer_comes_back(
    cli: Any, services: Services, listening: Callable[..., Listening], program: Program
) -> None:
    listens = listening("--forward", program.url)
    program.status, program.body = 503, b"still starting"
    cli("endpoints", "test", listens.began["endpoint_id"])
    services.delivery.send_due()
    told = next(listens.lines)
    assert (told["status"], told["forward"]["status"], told["forward"]["problem"]) == (503, 503, None)
    [(headers, body)] = program.got
    assert Webhook(listens.began["secret"]).verify(body, headers)["type"] == "ping"
    assert headers["Content-Type"] == "application/json"
    assert headers["Host"] == urlsplit(program.url).netloc
    assert json.loads(body) == told["event"]
    [attempt] = attempts(services)
    assert (attempt.status_code, attempt.response) == (503, "still starting")
    program.status, program.body = 204, b""
    [delivery] = deliveries(services)
    cli("replay", ids.public("dlv", delivery.id))
    services.delivery.send_due()
    again = next(listens.lines)
    assert (again["status"], again["webhook_id"], again["event"]) == (204, told["webhook_id"], told["event"])
    assert [d.state for d in deliveries(services)] == ["delivered"]


def test_a_program_that_is_down_is_told_and_tried_again(
    cli: Any, services: Services, listening: Callable[..., Listening]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    listens = listening("--forward", closed)
    cli("endpoints", "test", listens.began["endpoint_id"])
    services.delivery.send_due()
    told = next(listens.lines)
    assert (told["status"], told["forward"]["status"]) == (502, None)
    assert told["forward"]["problem"] == "connection refused"
    [delivery] = deliveries(services)
    assert (delivery.state, delivery.due_at is not None) == ("pending", True), "the sender tries again"
    [attempt] = attempts(services)
    assert attempt.status_code == 502


def test_with_a_secret_it_needs_no_tracker(bare: Any, program: Program) -> None:
    secret, body = signing.new_secret(), b'{"type":"ping","data":{"id":"\\u001b[31m"}}'
    (bare.folder / "secret").write_text(secret + "\n")
    process = bare.starts("listen", "--secret-file", "secret", "--forward", program.url)
    assert process.stdout is not None
    url = process.stdout.readline().split()[2].rstrip(",")
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)) as connection:
        for signer in (secret, signing.new_secret()):
            connection.request("POST", "/", body, signing.headers([signer], "evt_1", int(time.time()), body))
            connection.getresponse().read()
    process.send_signal(signal.SIGTERM)
    said, wrong = process.communicate(timeout=20)
    assert (process.returncode, wrong) == (0, "")
    assert secret not in said
    passed, refused = said.splitlines()[-2:]
    assert "ping" in passed
    assert "evt_1  -> 200 in " in passed
    assert "\x1b" not in said
    assert "REFUSED" in refused
    assert "no signature matches" in refused


def test_what_cannot_be_is_one_line_and_a_code(cli: Any) -> None:
    variables = {"HOOK": signing.new_secret(), "EMPTY": "whsec_"}
    assert "http or https" in cli("listen", "--forward", "ftp://localhost/", code=2).stderr
    assert (
        "with a secret none is made"
        in cli("listen", "--secret-env", "HOOK", "--tag", "a", code=2, variables=variables).stderr
    )
    assert "the secret is empty" in cli("listen", "--secret-env", "EMPTY", code=2, variables=variables).stderr
    assert "events.0" in cli("listen", "--event", "no.such", code=2).stderr
    assert "no project" in cli("listen", "--project", "elsewhere", code=1).stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another --port" in cli("listen", "--port", port, code=1).stderr
    assert "itself" in cli("listen", "--port", port, "--forward", f"http://localhost:{port}/", code=2).stderr
    assert cli.json("endpoints", "list")["data"] == []
