"""Registering tasks: validate against what only we know, store, schedule the first poll, and ring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tracker import bell, providers
from tracker.core import ids
from tracker.core.addresses import Policy, check_url
from tracker.core.generation import Generation, State
from tracker.core.schedule import Clock
from tracker.core.urls import host_of
from tracker.errors import ConflictError, FieldProblem, InvalidError, TrackerError
from tracker.services import steps
from tracker.services.forms import RegistrationForm
from tracker.store import clocks, credentials, db, due, endpoints, generations, outbox
from tracker.store.credentials import Credential
from tracker.store.db import Database, Transaction

JUST_SUBMITTED = timedelta(seconds=10)
"""A task submitted less than this ago is not asked about at once: no provider is done by then."""
CLOCK_TOLERANCE = timedelta(minutes=5)
"""A `submitted_at` further ahead than this is a mistake, not a clock that runs a little fast."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A stored generation; `created` is False when the same task was registered before."""

    created: bool
    generation: Generation


@dataclass
class _Context:
    """What the registrations of one request share, so that a batch looks each thing up once."""

    now: datetime
    accounts: list[Credential]
    receivers: dict[str, int] = field(default_factory=dict)
    clock_ids: dict[tuple[str, str], int] = field(default_factory=dict)


class Registration:
    """`policy` says which webhook URLs are acceptable; `price` and `longest` are the schedule's defaults, in seconds."""

    def __init__(
        self, database: Database, bell_: bell.Bell, policy: Policy, *, price: float, longest: float, base_url: str
    ) -> None:
        self._database, self._bell, self._policy = database, bell_, policy
        self._price, self._longest, self._base_url = price, longest, base_url

    def register(self, project_id: UUID, form: RegistrationForm) -> Registered:
        """Register one task. InvalidError, or ConflictError with the stored id when it is registered differently."""
        outcome = self.register_many(project_id, [form])[0]
        if isinstance(outcome, TrackerError):
            raise outcome
        return outcome

    def register_many(
        self, project_id: UUID, forms: Sequence[RegistrationForm | InvalidError]
    ) -> list[Registered | TrackerError]:
        """Register many tasks in one transaction; what is wrong with one does not hinder the others."""
        with self._database.transaction() as tx:
            shared = _Context(db.now(tx), credentials.of_project(tx, project_id))
            outcomes = [self._one(tx, project_id, form, shared) for form in forms]
            made = [o.generation for o in outcomes if isinstance(o, Registered) and o.created]
            outbox.publish(
                tx, [(e, g) for g in made if (e := steps.registered(g, shared.now, self._base_url).event)], shared.now
            )
        if made:
            self._bell.ring(bell.DISPATCH, bell.DEFAULT, because=f"{len(made)} registered")
        return outcomes

    def _one(
        self, tx: Transaction, project_id: UUID, form: RegistrationForm | InvalidError, shared: _Context
    ) -> Registered | TrackerError:
        if isinstance(form, InvalidError):
            return form
        try:
            account = self._checked(form, shared)
        except InvalidError as wrong:
            return wrong
        stored = generations.of_task(tx, project_id, form.provider, account.id, form.task_id)
        if stored is None:
            g = self._new(tx, project_id, form, account, shared)
            if generations.insert(tx, g):
                self._schedule(tx, g, shared)
                return Registered(created=True, generation=g)
            stored = generations.of_task(tx, project_id, form.provider, account.id, form.task_id)
        if stored is None:
            return ConflictError("this task is being deleted at this moment; register it again")
        differing = differences(form, stored)
        if differing:
            return ConflictError(
                "this task is registered already, with other values", *differing, id=ids.public("gen", stored.id)
            )
        return Registered(created=False, generation=stored)

    def _checked(self, form: RegistrationForm, shared: _Context) -> Credential:
        problems: list[FieldProblem] = []
        provider = providers.get(form.provider)
        if form.kind is not None and provider.kinds and form.kind not in provider.kinds:
            problems.append(FieldProblem("kind", f"{form.provider} has the kinds {', '.join(provider.kinds)}"))
        if form.webhook_url is not None:
            refused = check_url(form.webhook_url, self._policy, https_only=True)
            if refused:
                problems.append(FieldProblem("webhook_url", refused))
        if form.submitted_at is not None and form.submitted_at > shared.now + CLOCK_TOLERANCE:
            problems.append(FieldProblem("submitted_at", "it lies in the future; send the time of the submit, in UTC"))
        account = chosen(shared.accounts, form.provider, form.credential)
        if account is None:
            problems.append(no_credential(form.provider, form.credential))
        if problems or account is None:
            raise InvalidError(*problems)
        return account

    def _new(
        self, tx: Transaction, project_id: UUID, form: RegistrationForm, account: Credential, shared: _Context
    ) -> Generation:
        receiver = None
        if form.webhook_url is not None:
            host = host_of(form.webhook_url)
            if host not in shared.receivers:
                shared.receivers[host] = endpoints.receiver_of_host(tx, project_id, host)
            receiver = shared.receivers[host]
        same = (
            "provider",
            "task_id",
            "kind",
            "model",
            "metadata",
            "webhook_url",
            "submitted_at",
            "timeout",
            "poll_price",
            "poll_longest",
        )
        return Generation(
            id=ids.uuid7(shared.now),
            project_id=project_id,
            credential_id=account.id,
            credential=account.name,
            state=State.REGISTERED,
            registered_at=shared.now,
            timeout_at=shared.now + form.timeout,
            give_up_at=shared.now + form.gives_up_after,
            tags=tuple(form.tags),
            webhook_events=None if form.events is None else tuple(form.events),
            webhook_receiver_id=receiver,
            download=form.wished,
            **{name: getattr(form, name) for name in same},
        )

    def _schedule(self, tx: Transaction, g: Generation, shared: _Context) -> None:
        key = (g.provider, subject_of(g))
        if key not in shared.clock_ids:
            shared.clock_ids[key] = clocks.ensure(tx, *key, "waiting", price=self._price, longest=self._longest)
        clock_from = min(g.submitted_at or shared.now, shared.now)
        age = shared.now - clock_from
        fresh = g.submitted_at is not None and age < JUST_SUBMITTED
        gap = Clock().next_gap(age.total_seconds(), g.poll_price or self._price, g.poll_longest or self._longest)
        due.enter(
            tx,
            g.id,
            credential_id=g.credential_id,
            clock_id=shared.clock_ids[key],
            due_at=shared.now + timedelta(seconds=gap) if fresh else shared.now,
            clock_from=clock_from,
            timeout_at=g.timeout_at,
            price=g.poll_price,
            longest=g.poll_longest,
        )


def chosen(accounts: Sequence[Credential], provider: str, name: str) -> Credential | None:
    """The credential that `name` means for `provider`.

    One stored by hand comes before the environment's. `default` falls back to the built-in simulator's where nothing else serves the
    provider, so that a first try works without any key.
    """
    serving = [account for account in accounts if provider in account.providers]
    named = [account for account in serving if account.name == name]
    if not named and name == "default":
        named = [account for account in serving if account.name == "simulator" and account.environment_provider]
    return named[0] if named else None


def no_credential(provider: str, name: str) -> FieldProblem:
    """What to do when a registration names a credential that is not there."""
    variable = f"TRACKER_{provider.upper().replace('-', '_')}_API_KEY"
    mend = f"PUT /v1/credentials/{name} with providers [{provider!r}]"
    return FieldProblem(
        "credential",
        f"there is no credential {name!r} for {provider}; {mend}"
        + (f", or set {variable}" if name == "default" else ""),
    )


def subject_of(g: Generation) -> str:
    """What the duration of a generation is learned by, besides its provider."""
    return g.model or g.kind or ""


_COMPARED = ("webhook_url", "metadata", "kind", "model", "timeout", "submitted_at", "poll_price", "poll_longest")


def differences(form: RegistrationForm, stored: Generation) -> list[FieldProblem]:
    """Fields that were sent and say something else than what is stored; an absent field contradicts nothing."""
    same: dict[str, tuple[Any, Any]] = {name: (getattr(form, name), getattr(stored, name)) for name in _COMPARED}
    same["tags"] = (tuple(form.tags), stored.tags)
    same["events"] = (None if form.events is None else tuple(form.events), stored.webhook_events)
    same["download"] = (form.wished, stored.download)
    same["give_up_after"] = (form.gives_up_after, stored.give_up_at - stored.registered_at)
    # Deadlines move when time did not count, so the stored one is compared with what the sent one would have been.
    if form.give_up_after is not None and stored.give_up_at - stored.registered_at >= form.give_up_after:
        same["give_up_after"] = (None, None)
    return [
        FieldProblem(name, "differs from what is stored", "conflict")
        for name, (sent, kept) in same.items()
        if name in form.model_fields_set and _plain(sent) != _plain(kept)
    ]


def _plain(value: Any) -> Any:
    # poll_price and poll_longest are stored with 24 bits.
    return round(value, 4) if isinstance(value, float) else value
