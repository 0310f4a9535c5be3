"""Downloads through the client, from a server that breaks off, lies and stalls on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tracker.client import DownloadError, Tracker, UnreachableError

CONTENT = bytes(range(256)) * 4_000
PLACE = "/v1/generations/gen_1/artifacts"


class Unkind:
    """An API that serves one copy; `breaks` says after how many bytes each answer breaks off, `busy` how many 503 come first."""

    def __init__(self) -> None:
        self.breaks: list[int] = []
        self.busy = 0
        self.pending = 0
        self.asked: list[str | None] = []
        self.artifact: dict[str, Any] = {
            "kind": "video", "index": 0, "state": "stored", "size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(),
            "media_type": "video/mp4", "error": None,
        }  # fmt: skip
        self.url = ""

    def listing(self) -> bytes:
        shown = self.artifact | ({"state": "pending"} if self.pending else {})
        self.pending = max(0, self.pending - 1)
        return json.dumps({"data": [shown], "next_cursor": None}).encode()


@pytest.fixture
def unkind() -> Iterator[Unkind]:
    state = Unkind()

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if state.busy:
                state.busy -= 1
                self._send(503, b"", {"Retry-After": "0"})
            elif self.path == PLACE:
                self._send(200, state.listing(), {"Content-Type": "application/json"})
            else:
                self._serve()

        def _serve(self) -> None:
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            body = CONTENT[start:]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.breaks:
                self.wfile.write(body[: state.breaks.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(body)

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def tracker(unkind: Unkind) -> Iterator[Tracker]:
    with Tracker(unkind.url, "trk_x", patience=3) as found:
        yield found


def test_a_broken_download_goes_on_where_it_stopped(tracker: Tracker, unkind: Unkind, tmp_path: Path) -> None:
    unkind.breaks = [300_000, 1_000, 200_000]
    target = tracker.download("gen_1", to=tmp_path / "film.mp4")
    assert target.read_bytes() == CONTENT
    assert unkind.asked[0] is None
    assert all(wanted is not None for wanted in unkind.asked[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_later_call_goes_on_too(tracker: Tracker, unkind: Unkind, tmp_path: Path) -> None:
    (tmp_path / "film.mp4.part").write_bytes(CONTENT[:500_000])
    tracker.download("gen_1", to=tmp_path / "film.mp4")
    assert unkind.asked == ["bytes=500000-"]
    assert (tmp_path / "film.mp4").read_bytes() == CONTENT


def test_into_a_folder_it_gets_a_name(tracker: Tracker, tmp_path: Path) -> None:
    assert tracker.download("gen_1", to=tmp_path) == tmp_path / "gen_1-video-0.mp4"


def test_what_is_not_what_was_stored_is_thrown_away(tracker: Tracker, unkind: Unkind, tmp_path: Path) -> None:
    unkind.artifact["sha256"] = "0" * 64
    with pytest.raises(DownloadError, match="not what was stored"):
        tracker.download("gen_1", to=tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


def test_busy_answers_and_copies_in_the_making_are_waited_for(tracker: Tracker, unkind: Unkind, tmp_path: Path) -> None:
    unkind.busy, unkind.pending = 2, 1
    assert tracker.download("gen_1", to=tmp_path / "film.mp4").read_bytes() == CONTENT


def test_copies_that_failed_never_were_or_never_come(tracker: Tracker, unkind: Unkind, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no copy of audio/0"):
        tracker.download("gen_1", "audio", to=tmp_path)
    unkind.pending = 1_000
    with pytest.raises(DownloadError, match="is pending"):
        tracker.download("gen_1", to=tmp_path, timeout=0)
    unkind.pending, unkind.artifact["state"] = 0, "failed"
    with pytest.raises(DownloadError, match="is failed"):
        tracker.download("gen_1", to=tmp_path)


def test_a_server_that_sends_nothing_ever_is_given_up(unkind: Unkind, tmp_path: Path) -> None:
    unkind.breaks = [0] * 100
    with Tracker(unkind.url, "trk_x", patience=0.5) as tracker, pytest.raises(UnreachableError, match="broke off at 0"):
        tracker.download("gen_1", to=tmp_path / "film.mp4")


def test_an_empty_copy_is_an_empty_file(tracker: Tracker, unkind: Unkind, tmp_path: Path) -> None:
    unkind.artifact |= {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    unkind.breaks = [0]
    assert tracker.download("gen_1", to=tmp_path / "empty.mp4").read_bytes() == b""
