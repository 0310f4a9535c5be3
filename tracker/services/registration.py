"""Registering tasks: validate against what only we know, store, schedule the first poll, and ring."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tracker import bell, providers
from tracker.core import ids
from tracker.core.addresses import Policy, check_url
from tracker.core.generation import Generation, State
from tracker.core.urls import host_of
from tracker.errors import ConflictError, FieldProblem, InvalidError, TrackerError
from tracker.services import steps
from tracker.services.accounts import chosen, no_credential
from tracker.services.forms import RegistrationForm
from tracker.services.learning import FreshClocks
from tracker.services.together import Together
from tracker.store import credentials, db, endpoints, generations, registering
from tracker.store.clocks import Learned
from tracker.store.credentials import Credential
from tracker.store.db import Database, Transaction
from tracker.store.generations import Task
from tracker.store.registering import Found, New
from tracker.store.schedule import Scheduled

log = logging.getLogger(__name__)

JUST_SUBMITTED = timedelta(seconds=10)
"""A task submitted less than this ago is not asked about at once: no provider is done by then."""
TOLD_SINGLY = 20
"""Of so many registered at once each has a line in the log. A thousand lines would take as long as registering a thousand."""
CLOCK_TOLERANCE = timedelta(minutes=5)
"""A `submitted_at` further ahead than this is a mistake, not a clock that runs a little fast."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A stored generation; `created` is False when the same task was registered before."""

    created: bool
    generation: Generation


@dataclass(frozen=True, slots=True)
class _Wish:
    """A form that passed every check, and the account that it will be asked with."""

    form: RegistrationForm
    account: Credential

    @property
    def task(self) -> Task:
        return self.form.provider, self.account.id, self.form.task_id

    @property
    def clock(self) -> tuple[str, str]:
        return self.form.provider, self.form.model or self.form.kind or ""


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the registrations of one request share: looked up once, and made where it was missing."""

    receivers: dict[str, int]
    clocks: dict[tuple[str, str], Learned]
    download: tuple[str, ...] | None
    """What the project keeps where a registration does not say."""
    now: datetime


class Registration:
    """`policy` says which webhook URLs are acceptable; `price` and `longest` are the schedule's defaults, in seconds."""

    def __init__(
        self, database: Database, bell_: bell.Bell, policy: Policy, *, price: float, longest: float, base_url: str
    ) -> None:
        self._database, self._bell, self._policy = database, bell_, policy
        self._price, self._longest, self._base_url = price, longest, base_url
        self._together = Together(self._register_each)
        self._waiting = FreshClocks(price)

    def register(self, project_id: UUID, form: RegistrationForm) -> Registered:
        """Register one task. InvalidError, or ConflictError with the stored id when it is registered differently.

        What callers register in the same moment goes into one transaction.
        """
        outcome = self._together.do((project_id, form))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _register_each(self, items: Sequence[tuple[UUID, RegistrationForm]]) -> list[Registered | Exception]:
        """One outcome for each, in order. What fails for all of a project fails for nobody but him who caused it."""
        outcomes: dict[int, Registered | Exception] = {}
        for project_id in {project_id for project_id, _ in items}:
            places = [place for place, item in enumerate(items) if item[0] == project_id]
            try:
                outcomes |= zip(places, self.register_many(project_id, [items[p][1] for p in places]), strict=True)
            except Exception as wrong:  # noqa: BLE001 - whatever it is, it is raised where it belongs
                alone = len(places) == 1 or db.unreachable(wrong)
                outcomes |= {p: wrong if alone else self._register_each([items[p]])[0] for p in places}
        return [outcomes[place] for place in range(len(items))]

    def register_many(
        self, project_id: UUID, forms: Sequence[RegistrationForm | InvalidError]
    ) -> list[Registered | TrackerError]:
        """Register many tasks in one transaction; what is wrong with one does not hinder the others."""
        with self._database.looking() as tx:
            project = registering.look_up(tx, project_id)
            checked = [self._checked(form, project.accounts, project.at) for form in forms]
            wishes = [wish for wish in checked if isinstance(wish, _Wish)]
            if not wishes:
                return [outcome for outcome in checked if isinstance(outcome, TrackerError)]
            found = self._look_up(tx, project_id, wishes, project)
            made = self._store(tx, project_id, wishes, found)
            stored = {(g.provider, g.credential_id, g.task_id): g for g in made.values()}
            missing = {wish.task for wish in wishes} - stored.keys()
            if missing:
                # Registered before, as a rule: seldom enough that nobody looks first. Or its account was deleted since.
                stored |= generations.of_tasks(tx, project_id, missing)
                serving = {c.id: c.providers for c in credentials.of_project(tx, project_id)}
                checked = [
                    self._still_served(wish, serving) if isinstance(wish, _Wish) and wish.task in missing else wish
                    for wish in checked
                ]
        _tell(list(made.values()))
        if made:
            self._bell.ring_soon(bell.DISPATCH, bell.DEFAULT, because=f"{len(made)} registered")
        return [self._outcome(wish, stored, made) for wish in checked]

    def _checked(
        self, form: RegistrationForm | InvalidError, accounts: Sequence[Credential], now: datetime
    ) -> _Wish | TrackerError:
        if isinstance(form, InvalidError):
            return form
        try:
            provider = providers.get(form.provider)
        except InvalidError as unknown:
            return unknown
        problems: list[FieldProblem] = []
        if form.kind is not None and provider.kinds and form.kind not in provider.kinds:
            problems.append(FieldProblem("kind", f"{form.provider} has the kinds {', '.join(provider.kinds)}"))
        if form.webhook_url is not None:
            refused = check_url(form.webhook_url, self._policy, https_only=True)
            if refused:
                problems.append(FieldProblem("webhook_url", refused))
        if form.submitted_at is not None and form.submitted_at > now + CLOCK_TOLERANCE:
            problems.append(FieldProblem("submitted_at", "it lies in the future; send the time of the submit, in UTC"))
        account = chosen(accounts, form.provider, form.credential)
        if account is None:
            problems.append(no_credential(form.provider, form.credential))
        return InvalidError(*problems) if problems or account is None else _Wish(form, account)

    def _look_up(self, tx: Transaction, project_id: UUID, wishes: Sequence[_Wish], project: Found) -> _Shared:
        hosts = {host_of(wish.form.webhook_url) for wish in wishes if wish.form.webhook_url is not None}
        return _Shared(
            receivers=endpoints.receivers_of_hosts(tx, project_id, hosts) if hosts else {},
            clocks=self._waiting.of(tx, {wish.clock for wish in wishes}),
            download=project.download,
            now=project.at,
        )

    @staticmethod
    def _still_served(wish: _Wish, serving: Mapping[int, Sequence[str]]) -> _Wish | TrackerError:
        if wish.form.provider in serving.get(wish.account.id, ()):
            return wish
        return InvalidError(no_credential(wish.form.provider, wish.form.credential))

    def _store(
        self, tx: Transaction, project_id: UUID, wishes: Sequence[_Wish], shared: _Shared
    ) -> dict[int, Generation]:
        """The generations that are stored now, by the identity of their wish."""
        # Of two items about one task the first makes it, and the second finds it.
        first = {wish.task: wish for wish in reversed(wishes)}
        new = [wish for wish in wishes if first.get(wish.task) is wish]
        # Rising ids keep the order of the request within its millisecond.
        keys = sorted(ids.uuid7(shared.now) for _ in new)
        wanted = {id(wish): self._new(project_id, wish, key, shared) for wish, key in zip(new, keys, strict=True)}
        stored = registering.store(
            tx, [New(g, _entry(g), steps.registered(g, shared.now, self._base_url)) for g in wanted.values()]
        )
        return {key: g for key, g in wanted.items() if g.id in stored}

    @staticmethod
    def _outcome(
        wish: _Wish | TrackerError, stored: Mapping[Task, Generation], made: Mapping[int, Generation]
    ) -> Registered | TrackerError:
        if isinstance(wish, TrackerError):
            return wish
        if id(wish) in made:
            return Registered(created=True, generation=made[id(wish)])
        g = stored.get(wish.task)
        if g is None:
            return ConflictError("this task is being deleted at this moment; register it again")
        differing = differences(wish.form, g)
        if differing:
            return ConflictError(
                "this task is registered already, with other values", *differing, id=ids.public("gen", g.id)
            )
        return Registered(created=False, generation=g)

    def _new(self, project_id: UUID, wish: _Wish, key: UUID, shared: _Shared) -> Generation:
        form, learned, now = wish.form, shared.clocks[wish.clock], shared.now
        clock_from = min(form.submitted_at or now, now)
        return Generation(
            id=key,
            project_id=project_id,
            credential_id=wish.account.id,
            credential=wish.account.name,
            state=State.REGISTERED,
            registered_at=now,
            timeout_at=now + form.timeout,
            give_up_at=now + form.gives_up_after,
            tags=tuple(form.tags),
            webhook_events=None if form.events is None else tuple(form.events),
            webhook_receiver_id=None if form.webhook_url is None else shared.receivers[host_of(form.webhook_url)],
            download=shared.download if form.download is None else form.wished,
            next_poll_at=now + self._first_wait(wish, learned, now - clock_from),
            clock_id=learned.id,
            clock_from=clock_from,
            **{name: getattr(form, name) for name in _SAME},
        )

    def _first_wait(self, wish: _Wish, learned: Learned, age: timedelta) -> timedelta:
        form, account = wish.form, wish.account
        if form.submitted_at is None or age >= JUST_SUBMITTED:
            return timedelta(0)
        price = form.poll_price or account.poll_price or self._price
        longest = form.poll_longest or account.poll_longest or self._longest
        gap = learned.clock.next_gap(age.total_seconds(), price, longest)
        return min(timedelta(seconds=gap), form.timeout)


def _tell(made: Sequence[Generation]) -> None:
    if len(made) <= TOLD_SINGLY:
        for g in made:
            log.info("%s: registered", g.task_id, extra={"generation": ids.public("gen", g.id)})
    else:
        first, last = (ids.public("gen", g.id) for g in (made[0], made[-1]))
        log.info("%d registered", len(made), extra={"generation": first, "last": last})


_SAME = (
    "provider", "task_id", "kind", "model", "metadata", "webhook_url", "submitted_at", "timeout", "poll_price",
    "poll_longest",
)  # fmt: skip


def _entry(g: Generation) -> Scheduled:
    if g.next_poll_at is None or g.clock_id is None or g.clock_from is None:
        raise ValueError("a new generation has its first poll and its clock")
    return Scheduled(
        generation_id=g.id, credential_id=g.credential_id, clock_id=g.clock_id, due_at=g.next_poll_at, clock_from=g.clock_from,
        timeout_at=g.timeout_at, price=g.poll_price, longest=g.poll_longest,
    )  # fmt: skip


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
    # Deadlines move together when time did not count, so the sent one is moved as far before it is compared.
    moved = stored.timeout_at - stored.registered_at - stored.timeout
    same["give_up_after"] = (form.gives_up_after, stored.give_up_at - stored.registered_at - moved)
    return [
        FieldProblem(name, "differs from what is stored", "conflict")
        for name, (sent, kept) in same.items()
        if name in form.model_fields_set and _plain(sent) != _plain(kept)
    ]


def _plain(value: Any) -> Any:
    # poll_price and poll_longest are stored with 24 bits.
    return round(value, 4) if isinstance(value, float) else value
