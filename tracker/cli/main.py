"""All commands under one name, and the one place where an error becomes a line and an exit code: 0 done, 1 failed, 2 asked wrongly.

What a command needs is imported inside it, so that `tracker --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import typer

from tracker.cli import (
    artifacts,
    backup,
    credentials,
    deliveries,
    describing,
    diagnosis,
    endpoints,
    following,
    generations,
    importing,
    keys,
    learned,
    listening,
    registering,
    rotation,
    servers,
    showing,
    switches,
)
from tracker.errors import ConfigurationError, InvalidError, TrackerError

FAILED, WRONG = 1, 2

app = typer.Typer(
    name="tracker",
    help="Tracks AI generations: asks the providers, fires signed webhooks, keeps durable copies.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    servers, registering, importing, generations, showing, following, listening, deliveries, switches, endpoints, credentials, keys,
    describing, learned, artifacts, diagnosis, backup, rotation,
):  # fmt: skip
    group.add_to(app)


def main() -> NoReturn:
    """Run one command and exit."""
    try:
        code = app(prog_name="tracker", standalone_mode=False)
        sys.stdout.flush()
    except TrackerError as error:
        _end(_sentence(error), WRONG if isinstance(error, ConfigurationError | InvalidError) else FAILED)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)  # what shells report for Ctrl-C
    except BrokenPipeError:
        # Whoever read us has had enough, as `head` has: nothing more can be said, not even by the interpreter's last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        if hasattr(error, "format_message"):
            _end_usage(error)
        if os.environ.get("TRACKER_LOG_LEVEL", "").lower() == "debug":
            raise
        _end(_unexpected(error), FAILED)
    sys.exit(code if isinstance(code, int) else 0)


def _sentence(error: TrackerError) -> str:
    if isinstance(error, ConfigurationError):
        return str(error)
    problems = "; ".join(f"{p.field}: {p.message}" for p in getattr(error, "problems", ()))
    sentence = str(error) if not problems or isinstance(error, InvalidError) else f"{error}: {problems}"
    # The API's way to insist is a query parameter; ours is an option.
    return sentence.replace("?force=true", "--force")


def _end_usage(error: Any) -> NoReturn:
    """What the command line itself got wrong, in one line; a bare group prints its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(WRONG)
    path = error.ctx.command_path if getattr(error, "ctx", None) else "tracker"
    sentence = " ".join(error.format_message().split()).rstrip(".")
    _end(f"{sentence[0].lower()}{sentence[1:]}; see `{path} --help`", WRONG)


def _unexpected(error: Exception) -> str:
    from tracker.store.db import unreachable

    if unreachable(error):
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        return f"the database cannot be reached ({reason}); start it, or correct TRACKER_DATABASE_URL"
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {reason} (TRACKER_LOG_LEVEL=debug shows where)"


def _end(sentence: str, code: int) -> NoReturn:
    sys.stderr.write(f"tracker: {sentence}\n")
    sys.exit(code)
