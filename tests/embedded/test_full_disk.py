"""A disk that is full: the supervisor lives on, says so once, loses no older log, and goes on as before when there is room again."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tracker.embedded.child import Child, eventually
from tracker.embedded.installation import Installation
from tracker.embedded.logfile import LARGEST, rotate
from tracker.embedded.screen import Screen
from tracker.embedded.supervisor import Member, Orders, become_reaper
from tracker.settings import Settings

BOUND = 4_000_000
"""Bytes: less than a second log finds room in."""


class Disk:
    """A small file system of its own where one can be mounted, else a limit on how far this process's files may grow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
        self.own = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        if not self.own:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._limits[1]))
            return
        with (
            (self.folder / "ballast").open("wb", buffering=0) as ballast,
            suppress(OSError),
        ):
            while True:
                ballast.write(bytes(65536))

    def make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        (self.folder / "ballast").unlink(missing_ok=True)

    def end(self) -> None:
        self.make_room()
        if self.own:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.end()


@pytest.fixture
def installation(disk: Disk) -> Iterator[Installation]:
    before = os.umask(0o077)
    made = Installation(Settings(home=disk.folder / "home"), Screen(), Orders(), {})
    yield made
    made.orders.hurry = True
    made.stop()
    become_reaper(on=False)
    os.umask(before)


def sleeper(installation: Installation) -> Member:
    child = Child(
        "sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], environment={},
        log=installation.lodging.logs / "sleeper.log", directory=Path("/"),
    )  # fmt: skip
    return Member(child, 1, child.launch)


def test_a_rotation_without_room_leaves_both_logs_as_they_were(disk: Disk) -> None:
    path = disk.folder / "api.log"
    path.write_bytes(b"n" * BOUND)
    path.with_name("api.log.1").write_text("older\n")
    disk.fill()
    with pytest.raises(OSError, match=r"No space left|File too large"):
        rotate(path, largest=BOUND)
    assert path.stat().st_size == BOUND
    assert path.with_name("api.log.1").read_text() == "older\n"
    disk.make_room()
    assert rotate(path, largest=BOUND)
    assert path.stat().st_size == 0
    assert path.with_name("api.log.1").stat().st_size == BOUND
    assert {entry.name for entry in disk.folder.iterdir()} == {"api.log", "api.log.1"}


def test_the_supervisor_lives_on_and_says_so_once(
    disk: Disk, installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    member, supervisor = sleeper(installation), installation.supervisor
    supervisor.launch(member)
    with member.child.log.open("ab") as log:
        log.truncate(LARGEST)
    disk.fill()
    for number in range(1, 3):
        os.kill(member.child.pid or 0, signal.SIGKILL)
        assert eventually(lambda: not member.child.running, 5)
        supervisor.look()
        assert eventually(lambda: supervisor.look() or member.child.running, 5)
        assert member.deaths == number
    supervisor._rotated_at = float("-inf")
    supervisor.look()
    disk.make_room()
    said = capsys.readouterr().out
    for name in ("sleeper.log cannot be rotated", "supervisor.log cannot be written", "state.json cannot be written"):
        assert said.count(name) == 1, said
    assert said.count("sleeper was started again") == 2


def test_with_room_again_everything_is_written_as_before(
    disk: Disk, installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    member, screen = sleeper(installation), installation.screen
    disk.fill()
    installation.supervisor.launch(member)
    screen.say("one")
    disk.make_room()
    screen.say("two")
    assert (installation.lodging.logs / "supervisor.log").read_text().splitlines()[-1].endswith("two")
    disk.fill()
    screen.say("three " * 2000)  # more than fits into what is left of the log's last page
    assert capsys.readouterr().out.count("supervisor.log cannot be written") == 2, "a second fault is told again"
