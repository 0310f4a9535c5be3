"""What `tracker doctor` looks at where the database is well: whether what is due gets done, and the accounts that it is done with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tracker.cli.finding import Finding

if TYPE_CHECKING:
    from tracker.store.lateness import Lane
    from tracker.wiring import Services

LATE_LOOK, LATE_WRONG = 30.0, 300.0
"""Seconds by which the oldest due work may be late before somebody should look."""
TICK_LATE = 10.0
SWITCHES = {"polls": "poll", "webhooks": "webhook", "downloads": "download"}
"""What can be stopped, and the queue that it stops."""


def everything(services: Services) -> Iterator[Finding]:
    """Beat, the switches, the queues, the accounts."""
    ready = services.health.ready()
    yield _beat(ready["tick_age"])
    stopped = {SWITCHES[name] for name in ready["stopped"]}
    for name, reason in ready["stopped"].items():
        yield Finding(name, "warning", f"stopped: {reason}; what is due waits", f"tracker resume {name}")
    if "poll" not in stopped:
        yield from _polls(services.health.accounts(), ready["untaken"])
    if "webhook" not in stopped:
        yield from _webhooks(services.health.receivers())
    if "download" not in stopped:
        yield _queue("download", services.health.figures()["tracker_download_oldest_due_seconds"][0][1])
    yield from _credentials(services)


def _beat(age: float | None) -> Finding:
    if age is None or age > TICK_LATE:
        said = "it has never rung" if age is None else f"it rang last {age:.0f} s ago"
        return Finding("beat", "wrong", said, "start beat and the worker of queue `default` (`tracker up` does)")
    return Finding("beat", "ok", f"it rang {age:.1f} s ago")


def _polls(accounts: Sequence[Lane], untaken: float | None) -> Iterator[Finding]:
    yield _queue("poll", _ours(accounts))
    if untaken is not None:
        said = f"batches have gone out for {untaken:.0f} s, and none was taken"
        yield Finding("worker poll", "wrong", said, "start the worker of queue `poll`, or restart one that hangs")
    for account in _others(accounts):
        said, mend = budget(account)
        if said:
            yield Finding("budget", "warning", f"{account.name} is {account.late:.0f} s late: {said}", mend)


def budget(account: Lane) -> tuple[str, str]:
    """What holds an account's polls back, and what can be done; empty where its pause says it all."""
    from tracker.store.lateness import Held

    match account.held:
        case Held.CIRCUIT:
            said = f"its provider has not answered {account.failing} times in a row, so one poll at a time looks whether it is back"
            return said, "see whether the provider is down, or its base_url wrong"
        case Held.ASKED_TO_WAIT:
            return "its provider asked us to wait (Retry-After)", "lower its requests_per_second"
        case Held.RATE:
            return f"its requests_per_second ({account.rate:g}) are used up", "raise them, if the provider allows it"
        case Held.CAP:
            return f"its concurrency ({account.cap}) is used up", "raise it, if the provider allows it"
        case Held.PAUSED | None:
            return "", ""


def _webhooks(receivers: Sequence[Lane]) -> Iterator[Finding]:
    from tracker.store.lateness import Held

    yield _queue("webhook", _ours(receivers))
    said = {
        Held.CIRCUIT: "it gave no answer {failing} times in a row, and is tried seldom",
        Held.ASKED_TO_WAIT: "it asked for a pause",
        Held.RATE: "its rate_limit ({rate:g}) is used up",
        Held.CAP: "it is slow: {cap} requests are under way",
    }
    for receiver in _others(receivers):
        if receiver.held in said:
            why = said[receiver.held].format(failing=receiver.failing, rate=receiver.rate, cap=receiver.cap)
            mend = "the receiver's to mend; nothing is lost meanwhile"
            yield Finding("receiver", "warning", f"{receiver.name} is {receiver.late:.0f} s behind: {why}", mend)
    for receiver in receivers:
        if receiver.replayed:
            yield Finding("receiver", "ok", f"{receiver.name}: {receiver.replayed} replayed events wait for their turn")


def _ours(lanes: Sequence[Lane]) -> float:
    """How late that is which nothing but our own workers holds back."""
    return max((lane.late for lane in lanes if lane.held is None), default=0.0)


def _others(lanes: Sequence[Lane]) -> list[Lane]:
    return [lane for lane in lanes if lane.held is not None and lane.late >= LATE_LOOK]


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


def _credentials(services: Services) -> Iterator[Finding]:
    """Provider accounts of every project: paused, without key, or encrypted with a key that we lack."""
    from tracker.errors import ConfigurationError

    found = [(name, c) for name, key in services.keys.projects() for c in services.credentials.all(key)]
    if not found:
        mend = "tracker credentials set NAME, or set TRACKER_LUMA_API_KEY and the like"
        yield Finding("credentials", "warning", "there are none", mend)
    for project, credential in found:
        option = "" if project == "default" else f" --project {project}"
        name = f"{credential.name} ({', '.join(credential.providers)}){option and f' of {project}'}"
        if credential.state == "paused":
            mend = f"correct the account, then `tracker credentials resume {credential.name}{option}`"
            yield Finding("credential", "wrong", f"{name} is paused: {credential.paused_reason}", mend)
        elif credential.api_key is None:
            mend = f"tracker credentials set {credential.name}{option} --api-key-stdin"
            yield Finding("credential", "warning", f"{name} has no key", mend)
        else:
            try:
                services.vault.decrypt(credential.api_key)
                yield Finding("credential", "ok", name)
            except ConfigurationError as wrong:
                what, _, mend = str(wrong).partition("; ")
                yield Finding("credential", "wrong", f"{name}: {what}", mend)
