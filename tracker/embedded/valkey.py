"""One embedded Valkey: writes its configuration, starts it as our own child, and can say when it is ready.

It listens on the loopback alone, asks everybody for the password, and appends every write to disk each second.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tracker.embedded.account import make_directory, place, private_file, server_account
from tracker.embedded.binaries import valkey_program
from tracker.embedded.child import Child, eventually
from tracker.embedded.ports import LOOPBACK
from tracker.embedded.postgres import PLAIN_ENVIRONMENT, START_LIMIT
from tracker.errors import TrackerError

ANSWER_LIMIT = 1.0


class Valkey:
    """A server in `directory`, or where the servers' account can reach it (see `data_directory`)."""

    def __init__(
        self, directory: Path, *, port: int, password: str, extra: Mapping[str, str] | None = None, log: Path | None = None,
    ) -> None:  # fmt: skip
        self.name, self.port = "valkey", port
        self.data_directory = place(directory)
        self._password = password
        self._extra = dict(extra or {})
        self.child = Child(
            self.name, [valkey_program(), self._configuration],
            environment=PLAIN_ENVIRONMENT, log=log or directory.with_name(directory.name + ".log"), directory=Path("/"),
            account=server_account(),
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where it is, password included. Celery knows only the scheme `redis`."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/0"

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The server, while there is one."""
        return self.child.process

    def ready(self) -> bool:
        """Whether it accepts our password and has loaded what it holds."""
        if not self.child.running:
            return False
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=ANSWER_LIMIT) as connection:
                connection.sendall(f"AUTH {self._password}\r\nPING\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.read().split() == [b"+OK", b"+PONG", b"+OK"]
        except OSError:
            return False

    def launch(self) -> None:
        """Write the configuration and start the server without waiting until it is ready."""
        make_directory(self.data_directory)
        private_file(self._configuration, self._text())
        self.child.launch()

    def start(self) -> None:
        """`launch`, then wait until it is ready. Raises TrackerError with the end of its log when that fails."""
        self.launch()
        if not eventually(lambda: self.ready() or not self.child.running, START_LIMIT) or not self.child.running:
            self.child.kill()
            raise TrackerError(f"Valkey did not start on port {self.port}:\n{self.child.last_words}")

    def stop(self) -> None:
        """A shutdown that writes everything to disk."""
        self.child.stop()

    def remove(self) -> None:
        """Delete what the stopped server holds."""
        shutil.rmtree(self.data_directory, ignore_errors=True)

    @property
    def _configuration(self) -> Path:
        return self.data_directory / "valkey.conf"

    def _text(self) -> str:
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "requirepass": self._password,
            "dir": f'"{self.data_directory}"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',  # the append-only file alone is enough
            "maxmemory-policy": "noeviction",  # a broker must refuse rather than forget
            "daemonize": "no",
            **self._extra,
        }
        return "".join(f"{name} {value}\n" for name, value in options.items())
