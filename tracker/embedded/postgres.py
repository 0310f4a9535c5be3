"""One embedded PostgreSQL: makes its folder, starts it as our own child, and can say when it is ready.

It listens on the loopback alone, without a Unix socket, and asks everybody for the password.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tracker.embedded.account import identity, make_directory, place, private_file, server_account
from tracker.embedded.binaries import postgres_programs
from tracker.embedded.child import Child, eventually
from tracker.embedded.ports import LOOPBACK
from tracker.errors import TrackerError

PLAIN_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""Servers get nothing of ours: no PG* variable of the user, no secret."""
START_LIMIT = 60.0
READY_LINE = 7
"""The line of postmaster.pid (counted from 0) that says `ready`, as pg_ctl reads it."""


class Postgres:
    """A cluster in `directory`, or where the servers' account can reach it (see `data_directory`).

    `extra` are settings of postgresql.conf; durability is on unless they turn it off.
    """

    def __init__(
        self, directory: Path, *, port: int, password: str, user: str = "tracker", database: str = "tracker",
        extra: Mapping[str, str] | None = None, log: Path | None = None,
    ) -> None:  # fmt: skip
        self.name, self.port, self.user, self.database = "postgres", port, user, database
        self.data_directory = place(directory)
        self._password = password
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            **(extra or {}),
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self.programs = postgres_programs()
        self.child = Child(
            self.name, [self.programs / "postgres", "-D", self.data_directory, *settings],
            environment=PLAIN_ENVIRONMENT, log=log or directory.with_name(directory.name + ".log"), directory=Path("/"),
            account=server_account(), stop_signal=signal.SIGINT,
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where it is, password included."""
        return f"postgresql://{self.user}:{self._password}@{LOOPBACK}:{self.port}/{self.database}"

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The postmaster, while there is one."""
        return self.child.process

    def ready(self) -> bool:
        """Whether our own postmaster (never another one on that port) accepts connections."""
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        ours = self.child.running and lines[:1] == [str(self.child.pid)]
        return ours and len(lines) > READY_LINE and lines[READY_LINE].strip() == "ready"

    def launch(self) -> None:
        """Make the cluster if there is none, then start the server without waiting until it is ready."""
        if not (self.data_directory / "PG_VERSION").exists():
            self._initialise()
        self.child.launch()

    def start(self) -> None:
        """`launch`, then wait until it is ready. Raises TrackerError with the end of its log when that fails."""
        self.launch()
        if not eventually(lambda: self.ready() or not self.child.running, START_LIMIT) or not self.child.running:
            self.child.kill()
            raise TrackerError(f"PostgreSQL did not start on port {self.port}:\n{self.child.last_words}")

    def stop(self) -> None:
        """A fast shutdown: running transactions are rolled back, everything committed is on disk."""
        self.child.stop()

    def remove(self) -> None:
        """Delete the stopped cluster with all that it holds."""
        shutil.rmtree(self.data_directory, ignore_errors=True)

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there when it is whole, so that a broken attempt is never taken for one."""
        unfinished = self.data_directory.with_name(self.data_directory.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        make_directory(unfinished)
        password = private_file(unfinished.with_name(unfinished.name + ".password"), self._password)
        try:
            self._run(
                "initdb", "-D", unfinished, "-U", self.user, "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8",
                # The builtin provider knows Unicode without ICU; with the plain C locale lower('Ä') would stay 'Ä'.
                "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions", "--no-sync",
            )  # fmt: skip
        finally:
            password.unlink()
        self._run("postgres", "--single", "-D", unfinished, "postgres", send=f'CREATE DATABASE "{self.database}";\n')
        self._run("initdb", "--sync-only", "-D", unfinished)
        if self.data_directory.exists():
            self.data_directory.rmdir()  # refuses when it holds anything: nothing is ever overwritten
        unfinished.rename(self.data_directory)

    def _run(self, program: str, *arguments: str | Path, send: str = "") -> None:
        done = subprocess.run(  # noqa: S603 - the command is ours
            [str(self.programs / program), *map(str, arguments)], input=send, env=PLAIN_ENVIRONMENT, cwd="/", text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=START_LIMIT, check=False, **identity(self.child.account),
        )  # fmt: skip
        if done.returncode != 0:
            raise TrackerError(f"{program} failed in {self.data_directory.parent}:\n{done.stdout}")
