"""A tracker in a process of its own, as a person starts it, and what the kernel tells about its family (Linux)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from tracker.embedded.child import eventually

STANDIN = Path(__file__).with_name("standin_tracker.py")
ROOT = STANDIN.parent.parent.parent
CHILDREN = ("postgres", "valkey", "api", "worker", "flower")


class Up:
    """One supervisor, started from an empty environment."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home, self.output = home, home.with_suffix(f".{time.monotonic_ns()}.out")
        plain = {name: value for name, value in os.environ.items() if not name.startswith("TRACKER_")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, STANDIN, str(home)], cwd=home.parent, stdout=output, stderr=subprocess.STDOUT,
                env={**plain, "PYTHONPATH": str(ROOT), "TRACKER_API_HOST": "127.0.0.1", **variables},
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def state(self) -> dict:
        return json.loads((self.home / "state.json").read_text())

    @property
    def pids(self) -> dict[str, int]:
        return {name: child["pid"] for name, child in self.state["children"].items()}

    def ready(self) -> "Up":
        assert eventually(lambda: "Ctrl-C stops everything" in self.said or self.process.poll() is not None, 30), (
            self.said
        )
        assert self.process.poll() is None, self.said
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def family(self) -> list[int]:
        """Everything that carries this home in its environment or its folder on its command line."""
        marks = [
            str(self.home).encode(),
            self.state["database_directory"].encode(),
            b"valkey-server 127.0.0.1:%d" % self.state["ports"]["valkey"],
        ]
        return [
            pid
            for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
            if pid != self.process.pid and any(mark in about(pid) for mark in marks)
        ]


def about(pid: int) -> bytes:
    found = b""
    for name in ("cmdline", "environ"):
        with suppress(OSError):
            found += Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ")
    return found


def listening(port: int) -> tuple[str, ...]:
    """The addresses on which somebody listens at a port, as the kernel prints them (little-endian hexadecimal)."""
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    found = [row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]
    return tuple(socket.inet_ntoa(bytes.fromhex(address)[::-1]) if len(address) == 8 else address for address in found)
