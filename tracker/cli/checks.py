"""What `tracker doctor` looks at: each check yields findings, and the later ones are left out where an earlier one makes them pointless."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.cli import work
from tracker.cli.finding import Finding
from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from tracker.settings import Settings
    from tracker.wiring import Services

OLDEST_POSTGRES = 15
SKEW_LOOK, SKEW_WRONG = 2.0, 60.0
"""Seconds between this clock and the database's. Signed webhooks and links are refused by receivers whose clock differs by minutes."""
SPACE_LOOK, SPACE_WRONG = 2_000_000_000, 200_000_000
OURS_ELSEWHERE = frozenset({"TRACKER_PUBLISH", "TRACKER_VERSION", "TRACKER_INTERNAL_SIMULATOR_URL"})
"""Variables that docker-compose.yml and the supervisor use."""


def everything() -> Iterator[Finding]:
    """Every check, in the order in which things depend on each other."""
    from tracker import wiring
    from tracker.providers import take_in
    from tracker.settings import attach, load

    yield from variables()
    try:
        settings = load()
        yield Finding("settings", "ok", f"home {settings.home.resolve()}")
        yield from home(settings)
        take_in(settings.home)
        settings = attach(settings)
        services = wiring.build(settings, application="tracker-doctor", pool=2)
    except TrackerError as wrong:
        what, _, mend = str(wrong).partition("; ")
        yield Finding("settings" if isinstance(wrong, ConfigurationError) else "servers", "wrong", what, mend)
        return
    try:
        yield from _installation(settings, services)
    finally:
        services.close()


def _installation(settings: Settings, services: Services) -> Iterator[Finding]:
    found = list(database(services))
    yield from found
    yield from servers(services)
    yield from disk(settings)
    if ("schema", "ok") in {(finding.subject, finding.verdict) for finding in found}:
        yield from work.everything(services)
        yield from secrets(services)


def variables() -> Iterator[Finding]:
    """Names that begin with TRACKER_ and mean nothing: most often misspelt."""
    from dotenv import dotenv_values

    from tracker.settings import PROVIDERS, Settings, described_in

    known = {
        f"TRACKER_{name.upper()}" for name in Settings.model_fields if name not in {"accounts", "given"}
    } | OURS_ELSEWHERE
    given = {**dotenv_values(".env"), **os.environ}
    home = Path(given.get("TRACKER_HOME") or Settings.model_fields["home"].default)
    names = (*PROVIDERS, *(file.stem for file in described_in(home)))
    known |= {f"TRACKER_{p.replace('-', '_').upper()}_{field}" for p in names for field in ("BASE_URL", "API_KEY")}
    unknown = sorted(name for name in given if name.startswith("TRACKER_") and name not in known)
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        yield Finding(
            "variables", "warning", f"{name} is not known", f"did you mean {near[0]}?" if near else "remove it"
        )
    if not unknown:
        yield Finding("variables", "ok", "every TRACKER_ variable is known")


def home(settings: Settings) -> Iterator[Finding]:
    """Whether others can read the generated secrets."""
    path = settings.home
    if settings.embedded and path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding("home", "wrong", f"{path} can be read by others", f"chmod 700 {path}")


def database(services: Services) -> Iterator[Finding]:
    """Reachable, recent enough, at our schema, with our time, and readable with our keys."""
    from tracker.store import db

    try:
        with services.database.transaction() as tx:
            before = time.time()
            skew = db.now(tx).timestamp() - (before + time.time()) / 2
            revision, read_only = db.revision(tx), db.read_only(tx)
    except Exception as error:  # noqa: BLE001 - whatever it is, it means that we have no database
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        yield Finding(
            "database", "wrong", f"it cannot be reached ({reason})", "start it, or correct TRACKER_DATABASE_URL"
        )
        return
    version = services.database.engine.dialect.server_version_info or (0,)
    shown = f"PostgreSQL {'.'.join(map(str, version))}"
    if int(version[0]) < OLDEST_POSTGRES:
        yield Finding("database", "wrong", f"it is {shown}", f"PostgreSQL {OLDEST_POSTGRES} or newer is needed")
    elif read_only:
        mend = "name the primary in TRACKER_DATABASE_URL, or let this server take writes"
        yield Finding("database", "wrong", f"{shown} takes no writes", mend)
    else:
        yield Finding("database", "ok", shown)
    yield _schema(revision)
    verdict = "ok" if abs(skew) < SKEW_LOOK else "warning" if abs(skew) < SKEW_WRONG else "wrong"
    mend = "" if verdict == "ok" else "set this machine's clock by NTP"
    yield Finding("clock", verdict, f"{abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} the database's", mend)


def _schema(revision: str | None) -> Finding:
    from tracker.store import migrations

    at, needed = f"at {revision or 'nothing'}", migrations.head()
    if revision == needed:
        return Finding("schema", "ok", at)
    if revision is not None and not migrations.known(revision):
        return Finding("schema", "wrong", f"{at}, which is newer than this program", "install the version that made it")
    return Finding("schema", "wrong", f"{at}, needed is {needed}", "tracker migrate")


def servers(services: Services) -> Iterator[Finding]:
    """Redis and the broker."""
    variables_of = {"redis": "TRACKER_REDIS_URL", "broker": "TRACKER_BROKER_URL"}
    for name, reached in services.bell.reachable().items():
        mend = f"start it, or correct {variables_of[name]}; what is due waits in the database"
        yield Finding(name, "ok", "reachable") if reached else Finding(name, "wrong", "it cannot be reached", mend)


def disk(settings: Settings) -> Iterator[Finding]:
    """Room where the embedded database and local copies grow."""
    seen: set[int] = set()
    for place in growing(settings):
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        if there.stat().st_dev not in seen:
            seen.add(there.stat().st_dev)
            yield space(place, shutil.disk_usage(there).free)


def growing(settings: Settings) -> list[Path]:
    """The folders that fill: the home, the embedded database where it lies elsewhere, and copies in files."""
    from tracker.settings import Home

    home = settings.home.resolve()
    places = [home]
    if "database_url" not in settings.given:
        with suppress(OSError, ValueError, KeyError):
            places.append(Path(json.loads(Home(home).state.read_text())["database_directory"]))
    if settings.artifacts.startswith("file://"):
        places.append(Path(settings.artifacts.removeprefix("file://")))
    return places


def space(place: Path, free: int) -> Finding:
    """Whether so many free bytes are enough."""
    verdict = "wrong" if free < SPACE_WRONG else "warning" if free < SPACE_LOOK else "ok"
    return Finding("disk", verdict, f"{free / 1e9:.1f} GB free at {place}", "" if verdict == "ok" else "make room")


def secrets(services: Services) -> Iterator[Finding]:
    """Whether our keys open what is stored for endpoints and projects: webhooks could not be signed otherwise."""
    sealed = services.endpoints.sealed()
    closed = [stored for stored in sealed if not opens(services, stored)]
    if closed:
        said = f"{len(closed)} of {len(sealed)} webhook secrets and headers are encrypted with a key that is not here"
        yield Finding("secrets", "wrong", said, "add the key that was in use to TRACKER_SECRET_KEYS")
    else:
        yield Finding("secrets", "ok", f"the keys open all {len(sealed)} webhook secrets and headers")


def opens(services: Services, stored: bytes) -> bool:
    """Whether one of our keys opens this."""
    try:
        services.vault.decrypt(stored)
    except ConfigurationError:
        return False
    return True
