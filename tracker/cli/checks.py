"""What `tracker doctor` looks at: each check yields findings, and the later ones are left out where an earlier one makes them pointless."""

from __future__ import annotations

import difflib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from tracker.settings import Settings
    from tracker.wiring import Services

OLDEST_POSTGRES = 15
SKEW_LOOK, SKEW_WRONG = 2.0, 60.0
"""Seconds between this clock and the database's. Signed webhooks and links are refused by receivers whose clock differs by minutes."""
SPACE_LOOK, SPACE_WRONG = 2_000_000_000, 200_000_000
LATE_LOOK, LATE_WRONG = 30.0, 300.0
"""Seconds by which the oldest due work may be late before somebody should look."""
TICK_LATE = 10.0
OURS_ELSEWHERE = frozenset({"TRACKER_PUBLISH", "TRACKER_VERSION", "TRACKER_INTERNAL_SIMULATOR_URL"})
"""Variables that docker-compose.yml and the supervisor use."""


@dataclass(frozen=True)
class Finding:
    """`verdict` is ok, warning or wrong; `mend` says what to do."""

    subject: str
    verdict: str
    said: str
    mend: str = ""


def everything() -> Iterator[Finding]:
    """Every check, in the order in which things depend on each other."""
    from tracker import wiring
    from tracker.settings import attach, load

    yield from variables()
    try:
        settings = load()
        yield Finding("settings", "ok", f"home {settings.home.resolve()}")
        yield from home(settings)
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
    if all(finding.verdict != "wrong" for finding in found):
        yield from work(services)
        yield from credentials(services)


def variables() -> Iterator[Finding]:
    """Names that begin with TRACKER_ and mean nothing: most often misspelt."""
    from dotenv import dotenv_values

    from tracker.settings import PROVIDERS, Settings

    known = {
        f"TRACKER_{name.upper()}" for name in Settings.model_fields if name not in {"accounts", "given"}
    } | OURS_ELSEWHERE
    known |= {f"TRACKER_{p.replace('-', '_').upper()}_{field}" for p in PROVIDERS for field in ("BASE_URL", "API_KEY")}
    unknown = sorted(
        name for name in {*os.environ, *dotenv_values(".env")} if name.startswith("TRACKER_") and name not in known
    )
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
    from tracker.store.migrations import head

    try:
        with services.database.transaction() as tx:
            before = time.time()
            skew = db.now(tx).timestamp() - (before + time.time()) / 2
            revision = db.revision(tx)
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
    else:
        yield Finding("database", "ok", shown)
    needed = head()
    at = f"at {revision or 'nothing'}"
    yield (
        Finding("schema", "ok", at)
        if revision == needed
        else Finding("schema", "wrong", f"{at}, needed is {needed}", "tracker migrate")
    )
    verdict = "ok" if abs(skew) < SKEW_LOOK else "warning" if abs(skew) < SKEW_WRONG else "wrong"
    mend = "" if verdict == "ok" else "set this machine's clock by NTP"
    yield Finding("clock", verdict, f"{abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} the database's", mend)


def servers(services: Services) -> Iterator[Finding]:
    """Redis and the broker."""
    variables_of = {"redis": "TRACKER_REDIS_URL", "broker": "TRACKER_BROKER_URL"}
    for name, reached in services.bell.reachable().items():
        mend = f"start it, or correct {variables_of[name]}; what is due waits in the database"
        yield Finding(name, "ok", "reachable") if reached else Finding(name, "wrong", "it cannot be reached", mend)


def disk(settings: Settings) -> Iterator[Finding]:
    """Room where the embedded database and local copies grow."""
    places = {settings.home.resolve()}
    if settings.artifacts.startswith("file://"):
        places.add(Path(settings.artifacts.removeprefix("file://")))
    seen: set[int] = set()
    for place in sorted(places):
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        if there.stat().st_dev in seen:
            continue
        seen.add(there.stat().st_dev)
        free = shutil.disk_usage(there).free
        verdict = "wrong" if free < SPACE_WRONG else "warning" if free < SPACE_LOOK else "ok"
        yield Finding("disk", verdict, f"{free / 1e9:.1f} GB free at {place}", "" if verdict == "ok" else "make room")


def work(services: Services) -> Iterator[Finding]:
    """Whether what is due gets done."""
    ready = services.health.ready()
    age = ready["tick_age"]
    if age is None or age > TICK_LATE:
        said = "it has never rung" if age is None else f"it rang last {age:.0f} s ago"
        yield Finding("beat", "wrong", said, "start beat and the worker of queue `default` (`tracker up` does)")
    else:
        yield Finding("beat", "ok", f"it rang {age:.1f} s ago")
    for name, reason in ready["stopped"].items():
        yield Finding(name, "warning", f"stopped: {reason}", f"tracker resume {name}")
    figures = services.health.figures()
    for queue, gauge in {
        "webhook": "tracker_webhook_oldest_due_seconds",
        "download": "tracker_download_oldest_due_seconds",
    }.items():
        yield _queue(queue, figures[gauge][0][1])
    yield _queue("poll", ready["lag"])
    if ready["untaken"] is not None:
        said = f"batches have gone out for {ready['untaken']:.0f} s, and none was taken"
        yield Finding("worker poll", "wrong", said, "start the worker of queue `poll`, or restart one that hangs")


def _queue(queue: str, late: float) -> Finding:
    verdict = "ok" if late < LATE_LOOK else "warning" if late < LATE_WRONG else "wrong"
    mend = (
        ""
        if verdict == "ok"
        else f"is the worker of queue `{queue}` running? if so, raise TRACKER_WORKERS_{queue.upper()}"
    )
    return Finding(
        f"queue {queue}", verdict, f"the oldest due work is {late:.0f} s late" if late >= 1 else "nothing is late", mend
    )


def credentials(services: Services) -> Iterator[Finding]:
    """Provider accounts of project `default`: paused, without key, or encrypted with a key that we lack."""
    found = [c for c in services.credentials.all(services.keys.project("default", make=True).project_id) if c.providers]
    if not found:
        yield Finding(
            "credentials",
            "warning",
            "there are none",
            "tracker credentials set NAME, or set TRACKER_LUMA_API_KEY and the like",
        )
    for credential in found:
        name = f"{credential.name} ({', '.join(credential.providers)})"
        if credential.state == "paused":
            mend = f"correct the account, then `tracker credentials resume {credential.name}`"
            yield Finding("credential", "wrong", f"{name} is paused: {credential.paused_reason}", mend)
        elif credential.api_key is None:
            yield Finding(
                "credential",
                "warning",
                f"{name} has no key",
                f"tracker credentials set {credential.name} --api-key-stdin",
            )
        else:
            yield _decrypts(services, credential.api_key, name)


def _decrypts(services: Services, stored: bytes, name: str) -> Finding:
    try:
        services.vault.decrypt(stored)
    except ConfigurationError as wrong:
        what, _, mend = str(wrong).partition("; ")
        return Finding("credential", "wrong", f"{name}: {what}", mend)
    return Finding("credential", "ok", name)
