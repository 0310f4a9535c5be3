"""The programs beside the product: each in a process group of its own, and none outlives the benchmark that started it."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.kit import ROOT
from tracker.embedded.ports import free_port, release

if TYPE_CHECKING:
    from bench.ground import Ground


class Program:
    """One process tree of the benchmark, in a group of its own so that nothing of it outlives the round."""

    def __init__(
        self, command: Sequence[str | Path], *, log: Path, environ: Mapping[str, str] | None = None, ready: bytes = b""
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if ready else output,  # a pipe that nobody reads would fill up and block it
                stderr=output,
                start_new_session=True,
            )
        atexit.register(self.stop)
        while ready:
            line = self.line()
            if ready in line:
                break

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> bytes:
        """The next line it prints. RuntimeError with the end of its log when it ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.log.stem} ended:\n{self.log.read_text()[-2000:]}")
        return line

    def tell(self, line: str) -> None:
        """Send it one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """End the whole group; a second time does nothing."""
        atexit.unregister(self.stop)
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(8)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


class Upstream:
    """The canned relay of bench/upstream.py."""

    def __init__(
        self, ground: Ground, template: bytes, *, latency_ms: float, tls: bool, ended: bytes | None = None
    ) -> None:
        self.tls, self.latency_ms = tls, latency_ms
        self._port, self._control = free_port(18100), free_port(18100)
        held = ground.folder / "template.json"
        held.write_bytes(template)
        options: list[str | Path] = ["--port", str(self._port), "--control", str(self._control), "--template", held]
        if ended is not None:
            (ground.folder / "ended.json").write_bytes(ended)
            options += ["--ended", ground.folder / "ended.json"]
        options += ["--latency-ms", str(latency_ms)] + (["--tls", ground.certificate_file] if tls else [])
        self._program = Program(
            [sys.executable, "-m", "bench.upstream", *options], log=ground.folder / "upstream.log", ready=b"ready"
        )

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self._program.pid

    def stats(self) -> dict[str, Any]:
        """What was asked since the last reset: requests, polls, the moments of the first and the last."""
        return call(f"http://127.0.0.1:{self._control}/stats")

    def reset(self) -> None:
        call(f"http://127.0.0.1:{self._control}/reset")

    def stop(self) -> None:
        self._program.stop()
        release(self._port)
        release(self._control)


class Simulator:
    """The product's relay simulator, for what needs generations that end, budgets and files."""

    def __init__(self, ground: Ground, *options: str) -> None:
        self._port = free_port(18300)
        command = [sys.executable, "-m", "tracker.simulator", "--port", str(self._port), *options]
        self._program = Program(command, log=ground.folder / "simulator.log", ready=b"ready")
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self._program.pid

    def call(self, path: str, body: Any = None) -> Any:
        """One of its control calls."""
        return call(f"{self.url}/simulator/{path}", body)

    def stop(self) -> None:
        self._program.stop()
        release(self._port)


def call(url: str, body: Any = None) -> Any:
    """GET, or POST where there is a body; the decoded answer."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        return json.load(answer)
