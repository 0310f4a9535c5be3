"""A tracker started as a person does, in a folder of its own, and the marked blocks of our pages, run there as a reader runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MARKED = re.compile(r"<!-- (?P<mark>[\w ]+) -->\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def blocks(page: str, language: str, mark: str = "run") -> list[str]:
    """The blocks of a page under `<!-- mark -->`."""
    return [found["code"] for found in _MARKED.finditer(page) if (found["mark"], found["language"]) == (mark, language)]


@dataclass
class Newcomer:
    """A person in an empty folder, with `tracker` on the path and nothing configured."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKER_", "PG"))}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return plain | {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "PATH": path}

    def here(self, code: str) -> str:
        """The code with the addresses that this tracker has: ports move when the standard ones are taken."""
        ports = json.loads((self.folder / ".tracker" / "state.json").read_text())["ports"]
        return code.replace("127.0.0.1:8000", f"127.0.0.1:{ports['api']}").replace(
            "127.0.0.1:8787", f"127.0.0.1:{ports['simulator']}"
        )

    def run(self, *command: str, code: str, **variables: str) -> str:
        """What code prints that must succeed."""
        done = subprocess.run(
            [*command, code], cwd=self.folder, env=self.environment | variables, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def tracker(self, *arguments: str) -> str:
        """What a command prints that must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "tracker.cli", *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def up(self) -> Iterator[None]:
        """`tracker up`, for the time of the block."""
        log = self.folder / "up.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tracker.cli", "up"],
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=out,
            )
        try:
            deadline = time.monotonic() + 90
            while "The tracker is up" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0, log.read_text()

    def clear(self) -> None:
        """Remove what the stopped tracker keeps."""
        subprocess.run(
            [sys.executable, "-m", "tracker.embedded", "fresh"],
            cwd=self.folder,
            env=self.environment,
            check=True,
            capture_output=True,
        )
