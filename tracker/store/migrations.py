"""Bringing a database to the schema of this program. Works from a checkout and from an installed package."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import tracker
from tracker.errors import SchemaOutdatedError
from tracker.store import db
from tracker.store.db import Transaction, sqlalchemy_url


def _scripts() -> Path:
    package = Path(tracker.__file__).parent
    packed = package / "_alembic"
    return packed if packed.is_dir() else package.parent / "alembic"


def configuration() -> Config:
    """Alembic's configuration for our scripts."""
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    return config


@cache
def head() -> str:
    """The revision that this program needs."""
    found = ScriptDirectory.from_config(configuration()).get_current_head()
    if found is None:
        raise RuntimeError("no migrations are packed with this program")
    return found


def refuse_other_schema(tx: Transaction) -> None:
    """Raise SchemaOutdatedError unless the database is at the revision that this program needs."""
    found = db.revision(tx)
    if found != head():
        raise SchemaOutdatedError(found, head(), newer=found is not None and not known(found))


def known(revision: str) -> bool:
    """Whether this program has that revision: it lacks those of newer versions."""
    return any(script.revision == revision for script in ScriptDirectory.from_config(configuration()).walk_revisions())


def empties(revision: str | None, target: str) -> bool:
    """Whether going from `revision` to `target` takes back the first revision, and with it every table and all that they hold."""
    if revision is None or not (target == "base" or (target.startswith("-") and target[1:].isdigit())):
        return False
    taken = len(list(ScriptDirectory.from_config(configuration()).iterate_revisions(revision, "base")))
    return target == "base" or -int(target) >= taken


def migrate(url: str, target: str = "head") -> None:
    """Bring the database at `url` up to `target`, or down when it begins with `-`. Raises what the database raises."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    engine = create_engine(sqlalchemy_url(url))
    try:
        with engine.begin() as connection:
            config = configuration()
            config.attributes["connection"] = connection
            (command.downgrade if target.startswith("-") or target == "base" else command.upgrade)(config, target)
    finally:
        engine.dispose()
