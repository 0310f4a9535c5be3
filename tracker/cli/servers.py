"""Commands that become another program: the supervisor, the demonstration, the simulator. And the migration that they start with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tracker.cli.options import AsJson
from tracker.errors import FieldProblem, InvalidError

Home = Annotated[Path | None, typer.Option("--home", help="Instead of TRACKER_HOME (default ./.tracker).")]
ARGUMENTS_PASS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(demo)
    app.command(context_settings=ARGUMENTS_PASS, add_help_option=False)(simulator)
    app.command()(migrate)


def up(
    *,
    demo: Annotated[
        bool, typer.Option("--demo", help="Show example generations, unless a provider is configured.")
    ] = False,
    home: Home = None,
) -> None:
    """Start everything and keep it running; Ctrl-C stops it."""
    become("tracker.embedded", "up", *(["--demo"] if demo else []), *_home(home))


def demo(*, home: Home = None) -> None:
    """Show the main job on the built-in simulator, in a home of its own; ends by itself."""
    become("tracker.embedded", "demo", *_home(home))


def simulator(context: typer.Context) -> None:
    """Run the relay simulator alone (its own options: tracker simulator --help)."""
    become("tracker.simulator", *context.args)


def migrate(
    *,
    to: Annotated[str, typer.Option("--to", help="A revision, or -1 for one step back.")] = "head",
    delete_everything: Annotated[
        bool, typer.Option("--delete-everything", help="Go below the first revision although that drops every table.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database to the schema of this program."""
    from tracker.cli.render import print_json
    from tracker.cli.session import settings_here
    from tracker.store import migrations

    url = settings_here().required("database_url")
    if migrations.empties(_revision(url), to) and not delete_everything:
        wrong = "it lies below the first revision and would delete everything in the database"
        raise InvalidError(FieldProblem("--to", f"{wrong}; `tracker backup` first, then add --delete-everything"))
    migrations.migrate(url, to)
    revision = _revision(url)
    if as_json:
        print_json({"revision": revision, "needed": migrations.head()})
    else:
        sys.stdout.write(f"the database schema is at {revision or 'nothing'}\n")


def _revision(url: str) -> str | None:
    from tracker.store import db

    database = db.Database(url, size=1, application="tracker-cli")
    try:
        with database.transaction() as tx:
            return db.revision(tx)
    finally:
        database.close()


def _home(home: Path | None) -> list[str]:
    return [] if home is None else ["--home", str(home)]


def become(module: str, *arguments: str) -> NoReturn:
    """Run another program of ours in this one's place."""
    # The same process from here on: signals, terminal and exit code are the program's own.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - our own module, without a shell
