"""The commands `python -m tracker.embedded up [--demo]`, `demo`, `restore FILE` and `fresh`.

They exit with 0 when all went well, with 1 and a reason when not, with 2 for a wrong setting.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dotenv import dotenv_values

from tracker.embedded import environment, fresh, restoring
from tracker.embedded.demo import Demonstration
from tracker.embedded.installation import Installation, Programs
from tracker.embedded.loopback import Loopback
from tracker.embedded.ports import LOOPBACK
from tracker.embedded.roster import PROJECT
from tracker.embedded.screen import Screen
from tracker.embedded.story import Story, verdict
from tracker.embedded.supervisor import Orders
from tracker.errors import ConfigurationError, TrackerError
from tracker.providers import take_in
from tracker.settings import Settings, load

DOTENV = ".env"
INTERRUPTED = 130
"""What shells report for Ctrl-C."""
DEMO_PORTS = {"api_port": 8100, "flower_port": 5655, "simulator_port": 8887}
"""Where the ports of `demo` begin, so that a `tracker up` beside it keeps its own."""


def main(arguments: Sequence[str] | None = None, programs: Programs = Programs()) -> int:  # noqa: B008 - it is frozen
    """Run one command to its end."""
    options = _parser().parse_args(arguments)
    screen = Screen()
    try:
        settings = load()
        if options.home is not None:
            settings = settings.changed(home=options.home, given=settings.given | {"home"})
        if options.command == "fresh":
            return _fresh(settings, screen)
        if options.command == "restore":
            return _restore(settings, options)
        if options.command == "demo":
            return _demo(settings if options.home else settings.changed(home=settings.home / "demo"), screen, programs)
        base = environment.inherited(os.environ, dotenv_values(DOTENV), dotenv_values(PROJECT / DOTENV))
        return _run(Installation(settings, screen, Orders(), base, programs), demo=options.demo)
    except TrackerError as wrong:
        return _complain(screen, wrong)
    except KeyboardInterrupt:
        return INTERRUPTED


def _complain(screen: Screen, wrong: TrackerError) -> int:
    screen.fail(str(wrong))
    return 2 if isinstance(wrong, ConfigurationError) else 1


def _demo(settings: Settings, screen: Screen, programs: Programs) -> int:
    """A tracker of its own with nothing configured: never the user's servers, providers or ports."""
    plain = Settings(home=settings.home, log_level=settings.log_level).changed(**DEMO_PORTS)
    base = environment.without_settings(os.environ, dotenv_values(PROJECT / DOTENV))
    return _run(Installation(plain, screen, Orders(), base, programs), demo=True, ends_itself=True)


def _run(installation: Installation, *, demo: bool, ends_itself: bool = False) -> int:
    screen = installation.screen
    installation.orders.listen()
    try:
        take_in(installation.settings.home)  # a description that is wrong is told once, and not by every process
        installation.start()
        footer = "It ends by itself." if ends_itself else "Ctrl-C stops everything."
        screen.summary("The tracker is up", installation.addresses(), footer)
        story = _story(installation, screen) if demo else None
        return _watch(installation, story, ends_itself=ends_itself)
    except TrackerError as wrong:
        return _complain(screen, wrong)
    finally:
        installation.stop()


def _watch(installation: Installation, story: Story | None, *, ends_itself: bool) -> int:
    def over() -> bool:
        told = story is not None and story.tell()
        return told and ends_itself

    try:
        installation.supervisor.run(over)
    finally:
        if story is not None:
            story.end()
    if story is None or not ends_itself:
        return 0
    if story.demonstration.finished.is_set():
        return 1 if story.demonstration.missing else 0
    installation.screen.say(f"stopped early: {verdict(story.demonstration)}")
    return 1


def _story(installation: Installation, screen: Screen) -> Story | None:
    settings = installation.settings
    if settings.accounts:
        screen.say(f"a provider is configured ({', '.join(sorted(settings.accounts))}), so no examples were registered")
        return None
    if "simulator" not in installation.ports:
        screen.say("the simulator is off, so no examples were registered")
        return None
    local = settings.changed(public_url=None).base_url  # the public one may lead through a proxy that is not there yet
    simulator = f"http://{LOOPBACK}:{installation.ports['simulator']}"
    demonstration = Demonstration(Loopback(local, settings.required("bootstrap_api_key")), Loopback(simulator, "demo"))
    story = Story(demonstration, screen)
    demonstration.begin()
    return story


def _fresh(settings: Settings, screen: Screen) -> int:
    for folder in fresh.remove(settings):
        screen.say(f"removed {folder}")
    return 0


def _restore(settings: Settings, options: argparse.Namespace) -> int:
    os.umask(0o077)  # nothing that we write is for others
    revision = restoring.restore(settings, options.file, replace=options.replace)
    if options.json:
        sys.stdout.write(json.dumps({"restored": str(options.file), "revision": revision}) + "\n")
    else:
        sys.stdout.write(
            f"{options.file} is restored into {settings.home}, at schema {revision}; `tracker up` starts with it\n"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tracker.embedded", description="The tracker with its own servers, under supervision."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start everything; Ctrl-C stops it")
    up.add_argument(
        "--demo", action="store_true", help="show example generations on the simulator, unless a provider is configured"
    )
    demo = commands.add_parser("demo", help="show the examples in a home of its own, then end")
    fresh_ = commands.add_parser("fresh", help="remove what a stopped tracker keeps: database, files, keys, logs")
    restore = commands.add_parser("restore", help="bring a backup into the home of a stopped tracker")
    restore.add_argument("file", type=Path, metavar="FILE", help="what `tracker backup` wrote; - is standard input")
    restore.add_argument("--replace", action="store_true", help="although the database is not empty: it is lost")
    restore.add_argument("--json", action="store_true", help="tell the outcome as JSON")
    for command in (up, demo, restore, fresh_):
        command.add_argument("--home", type=Path, help="instead of TRACKER_HOME (default .tracker)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
