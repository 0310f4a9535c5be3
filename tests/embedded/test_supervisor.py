"""The supervisor with the simplest children there are: what it does when they end, hang, or never start."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracker.embedded.child import Child, describe, eventually
from tracker.embedded.logfile import LARGEST
from tracker.embedded.screen import Screen
from tracker.embedded.supervisor import PAUSES, Flag, Member, Orders, StoppedError, Supervisor, become_reaper
from tracker.errors import TrackerError

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
SLEEPER = "import time; time.sleep(60)"


class Scene:
    def __init__(self, folder: Path) -> None:
        self.folder, self.said, self.orders = folder, [], Orders()
        self.supervisor = Supervisor(self.said.append, self.orders)

    def member(self, name: str, code: str, *, stage: int = 1, grace: float = 5.0) -> Member:
        child = Child(
            name,
            [sys.executable, "-c", code],
            environment={},
            log=self.folder / f"{name}.log",
            directory=Path("/"),
            grace=grace,
        )
        return Member(child, stage, child.launch)

    def look_until(self, condition: object, seconds: float = 5.0) -> bool:
        def seen() -> bool:
            self.supervisor.look()
            return bool(condition())  # type: ignore[operator]

        return eventually(seen, seconds)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    become_reaper()
    found = Scene(tmp_path)
    yield found
    found.orders.hurry = True
    found.supervisor.stop()
    become_reaper(on=False)


def test_a_child_that_keeps_ending_is_restarted_at_once_and_then_ever_more_slowly(scene: Scene) -> None:
    member = scene.member("brief", "raise SystemExit(3)")
    scene.supervisor.launch(member)
    began = time.monotonic()
    assert scene.look_until(lambda: member.deaths >= 4)
    assert time.monotonic() - began >= PAUSES[1] + PAUSES[2]
    assert scene.said.count("brief has ended (exit status 3)") == 4
    assert max(PAUSES) < 4


def test_what_a_killed_child_leaves_behind_is_ended(scene: Scene) -> None:
    family = f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', '{SLEEPER}'], start_new_session=True).pid, flush=True); time.sleep(60)"
    member = scene.member("parent", family)
    scene.supervisor.launch(member)
    assert eventually(lambda: member.child.last_words.strip().isdigit(), 5)
    orphan = int(member.child.last_words)
    os.kill(member.child.pid or 0, signal.SIGKILL)
    assert scene.look_until(lambda: member.deaths == 1)
    assert not Path(f"/proc/{orphan}").exists()


def test_stages_end_one_after_the_other_and_the_deaf_are_killed(scene: Scene) -> None:
    members = [
        scene.member("database", SLEEPER, stage=1),
        scene.member("deaf", DEAF, stage=3, grace=0.5),
        scene.member("door", SLEEPER, stage=5),
    ]
    scene.supervisor.launch(*members)
    assert eventually(lambda: "deaf" in members[1].child.last_words, 5)
    scene.supervisor.stop()
    assert [member.child.process.returncode for member in members if member.child.process] == [
        -signal.SIGTERM,
        -signal.SIGKILL,
        -signal.SIGTERM,
    ]
    assert scene.said == ["deaf did not end when asked and was killed"]


def test_the_second_order_to_stop_hurries(scene: Scene) -> None:
    member = scene.member("deaf", DEAF, grace=20.0)
    scene.supervisor.launch(member)
    assert eventually(lambda: "deaf" in member.child.last_words, 5)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        scene.orders.listen()
        signal.raise_signal(signal.SIGINT)
        assert scene.orders.stop.is_set()
        assert not scene.orders.hurry
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        began = time.monotonic()
        scene.supervisor.stop()
        assert time.monotonic() - began < 10
    finally:
        for number, action in before.items():
            signal.signal(number, action)
    assert scene.orders.hurry


def test_an_order_to_stop_interrupts_the_start(scene: Scene) -> None:
    member = scene.member("slow", SLEEPER)
    member.answers = lambda: False
    scene.supervisor.launch(member)
    scene.orders.stop.set()
    with pytest.raises(StoppedError):
        scene.supervisor.wait_ready(member, seconds=5)


def test_a_child_that_hopelessly_fails_or_takes_too_long_is_an_error_with_its_own_words(scene: Scene) -> None:
    failing = scene.member("failing", "raise SystemExit('no such table')")
    scene.supervisor.launch(failing)
    with pytest.raises(TrackerError, match=r"failing did not get ready(.|\n)*no such table"):
        scene.supervisor.wait_ready(failing, seconds=20)
    slow = scene.member("slow", SLEEPER)
    slow.answers = lambda: False
    scene.supervisor.launch(slow)
    with pytest.raises(TrackerError, match="slow did not get ready"):
        scene.supervisor.wait_ready(slow, seconds=0.2)


def test_a_program_that_cannot_be_started_does_not_end_the_supervisor(scene: Scene) -> None:
    member = scene.member("missing", "")
    member.child.command[0] = "/nowhere/python"
    scene.supervisor.launch(member)
    assert scene.look_until(lambda: member.deaths >= 2)
    assert "missing could not be started" in scene.said[0]


def test_one_that_cannot_be_asked_is_ready_once_it_has_lived_a_moment(scene: Scene) -> None:
    member = scene.member("quiet", SLEEPER)
    scene.supervisor.launch(member)
    assert not member.ready()
    scene.supervisor.wait_ready(member, seconds=10)
    assert member.deaths == 0


def test_run_once_wants_success_within_its_time(scene: Scene) -> None:
    scene.supervisor.run_once(scene.member("good", "print('done')").child, seconds=10)
    with pytest.raises(TrackerError, match=r"bad failed(.|\n)*broken"):
        scene.supervisor.run_once(scene.member("bad", "raise SystemExit('broken')").child, seconds=10)
    with pytest.raises(TrackerError, match="endless failed"):
        scene.supervisor.run_once(scene.member("endless", SLEEPER).child, seconds=0.3)


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_exit_status_in_words(status: int, words: str) -> None:
    assert describe(status) == words


def test_a_signal_that_meets_its_own_waiter_is_heard() -> None:
    flag, before = Flag(), signal.signal(signal.SIGALRM, lambda *_: flag.set())
    try:
        for _ in range(2000):  # looks that are short enough for the alarm to fall into any part of one
            flag.wait(0.00001)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert eventually(lambda: flag.wait(0.00001), 5)
        assert flag.is_set()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_log_that_grew_too_large_is_rotated_while_its_child_goes_on(scene: Scene) -> None:
    large, small = scene.member("large", SLEEPER), scene.member("small", SLEEPER)
    scene.supervisor.launch(large, small)
    with large.child.log.open("ab") as log:
        log.truncate(LARGEST)
    scene.supervisor.look()
    assert large.child.log.stat().st_size == 0
    assert {path.name for path in scene.folder.iterdir()} == {"large.log", "large.log.1", "small.log"}
    assert large.child.running


def test_what_is_said_is_kept_in_a_log_that_is_rotated_too(tmp_path: Path) -> None:
    log, screen = tmp_path / "supervisor.log", Screen()
    with log.open("ab") as grown:
        grown.truncate(LARGEST)
    screen.keep_log(log)
    screen.say("a worker was started again")
    assert log.read_text().endswith(" a worker was started again\n")
    assert log.with_name("supervisor.log.1").stat().st_size == LARGEST
