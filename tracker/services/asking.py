"""Asking a provider about claimed generations: one request for many where it can, singly where it cannot. No transaction is open here."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import NamedTuple, cast

from tracker.core.generation import State
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.core.urls import host_of
from tracker.errors import ConfigurationError
from tracker.net.fetch import Answer, Ask, Fetchers
from tracker.providers import REGISTRY
from tracker.providers.base import Account, Provider, Question, Response, Subject, TwoSteps
from tracker.store.batches import Asked
from tracker.store.credentials import Credential
from tracker.store.vault import Vault

AT_ONCE = 2000
"""Requests in flight per batch: all of a full one. The credentials' own bounds were kept by the claim, the process's is the fetcher's.

With half as many a batch takes twice as long as its answers do, more are open at once, and at 200 ms a poll costs a tenth more (measured).
"""
DEADLINE = 15.0
"""Seconds for one answer, everything included. Relays that take longer are asked again later."""
BETWEEN_TRIES = 0.25
"""Seconds until what follows from a batch's answers and could not be paid for is tried again: a transaction that locks its accounts."""
LAST_ASK = 45.0
"""Seconds after its beginning until which a batch asks anything: all of it is answered before its lease in `flights` ends."""
BETWEEN_LOOKS = 600.0
"""Seconds until a task is looked at again whose provider this process does not know."""
NO_BATCH_PATH = timedelta(days=1)
"""A relay that says it has no batch path is tried for one again after this."""
BATCH_PATH_FAILED = timedelta(minutes=5)
"""A batch path that failed where a single question was answered is tried again after this: it may have been a hiccup."""
SUSPICIOUS = frozenset({ProblemCode.HTTP_ERROR, ProblemCode.UNREADABLE})
"""Problems of a whole batch that may be the batch path's alone: one of its members, asked singly, tells."""

Observed = tuple[Asked, Observation, bytes]
"""A generation, what was seen of it, and the answer's body where it is about this one alone."""


class _Errand(NamedTuple):
    """What one request is about: one generation, or many.

    `suspect` holds what a whole batch was answered with; its first member is then asked singly. `first` is the answer that leads to a
    second question.
    """

    members: list[Asked]
    many: bool = False
    suspect: Mapping[str, Observation] | None = None
    first: tuple[Seen, Question, bytes] | None = None


@dataclass
class Round:
    """One batch message's questions: who is asked with which account, and what was learned about the accounts."""

    accounts: Mapping[int, Credential]
    now: Callable[[], datetime]
    paid: Mapping[int, int]
    """Requests that the claim paid for, by credential: no more are made at first."""
    afford: Callable[[Mapping[int, int], Mapping[int, int]], Mapping[int, int]]
    """Pays for as many further requests as budgets allow, by credential, beside so many of this batch that are not answered yet."""
    opened: dict[tuple[int, str], Account | Problem] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    without_batch: dict[int, timedelta] = field(default_factory=dict)
    """Credentials whose relay has no batch path, or one that fails, and for how long to believe it."""

    def host(self, base_url: str) -> str:
        """`host:port` of an account: taken apart once, not for every question."""
        found = self.hosts.get(base_url)
        if found is None:
            found = self.hosts[base_url] = host_of(base_url)
        return found


class Asking:
    """`fetchers` belong to this process."""

    def __init__(self, vault: Vault, fetchers: Fetchers) -> None:
        self._vault, self._fetchers = vault, fetchers

    def observe(self, asked: Sequence[Asked], round_: Round) -> Generator[list[Observed], None, None]:
        """What is seen of each, in slices as answers arrive. Whom no slice names was not asked: the budget did not reach so far."""
        askable: list[Asked] = []
        refused: list[Observed] = []
        for a in asked:
            account = self._account(a, round_)
            if isinstance(account, Problem):
                refused.append((a, account, b""))
            else:
                askable.append(a)
        if refused:
            yield refused
        errands = self._errands(askable, round_)
        queue = deque(self._ask(errand, round_) for errand in errands)
        flying = Counter(errand.members[0].credential_id for errand in errands)
        left_over: list[_Errand] = []
        try_at, ends = 0.0, monotonic() + LAST_ASK
        for answers in self._fetchers.fetch(queue, at_once=AT_ONCE):
            slice_: list[Observed] = []
            at = round_.now()
            for answer in answers:
                seen, left = self._read(answer, at, round_)
                slice_ += seen
                left_over += left
                flying[answer.ask.key.members[0].credential_id] -= 1
            if queue and monotonic() >= ends:
                # What has found no connection by now is due again; it would outlast the lease.
                flying.subtract(ask.key.members[0].credential_id for ask in queue)
                queue.clear()
            if left_over and (monotonic() >= try_at or not flying.total()):
                # At once, and not when the slowest is answered: it may hang. What cannot be paid for now is tried again until then.
                errands, left_over = (
                    self._affordable(left_over, flying, round_) if monotonic() < ends else ([], left_over)
                )
                try_at = monotonic() + BETWEEN_TRIES if left_over else 0.0
                queue += [self._ask(errand, round_) for errand in errands]
                flying.update(errand.members[0].credential_id for errand in errands)
                if left_over and not flying.total():
                    slice_ += [
                        observed for errand in left_over for observed in _told(errand.members, errand.suspect or {})
                    ]
            if slice_:
                yield slice_

    def _account(self, a: Asked, round_: Round) -> Account | Problem:
        key = (a.credential_id, a.provider)
        if key not in round_.opened:
            round_.opened[key] = self._open(round_.accounts[a.credential_id], a.provider, round_.now())
        return round_.opened[key]

    def _open(self, credential: Credential, provider: str, now: datetime) -> Account | Problem:
        if provider not in REGISTRY:
            # Its file is gone, or younger than this process. It is looked at seldom: what is claimed is paid for.
            told = f"no file described {provider!r} when this worker started"
            return Problem(ProblemCode.NOT_DESCRIBED, told, BETWEEN_LOOKS)
        try:
            key = None if credential.api_key is None else self._vault.decrypt(credential.api_key)
        except ConfigurationError as wrong:
            return Problem(ProblemCode.UNDECRYPTABLE, str(wrong))
        return Account(credential.base_url or REGISTRY[provider].default_base_url, key, now.timestamp())

    @staticmethod
    def _errands(asked: Sequence[Asked], round_: Round) -> list[_Errand]:
        """No more than the claim paid for: it counted neither families, nor on a batch path that is known to be missing by now."""
        in_families = {name for name, provider in REGISTRY.items() if provider.kinds}

        together: defaultdict[tuple[int, str, str], list[Asked]] = defaultdict(list)
        for a in asked:
            together[a.credential_id, a.provider, (a.kind or "") if a.provider in in_families else ""].append(a)
        errands: defaultdict[int, list[_Errand]] = defaultdict(list)
        for (credential_id, provider, _), members in together.items():
            size = max(1, min(REGISTRY[provider].batch_size, round_.accounts[credential_id].batch_size))
            parts = (members[i : i + size] for i in range(0, len(members), size))
            errands[credential_id] += [_Errand(part, many=len(part) > 1) for part in parts]
        return [e for credential_id, all_ in errands.items() for e in _first(all_, round_.paid.get(credential_id, 0))]

    @staticmethod
    def _affordable(
        left_over: list[_Errand], flying: Mapping[int, int], round_: Round
    ) -> tuple[list[_Errand], list[_Errand]]:
        """Which of these may be asked now, and those that may not."""
        wanted = Counter(errand.members[0].credential_id for errand in left_over)
        granted = dict(round_.afford(wanted, {key: flying.get(key, 0) for key in wanted}))
        errands: list[_Errand] = []
        others: list[_Errand] = []
        for errand in sorted(left_over, key=_turn):
            credential_id = errand.members[0].credential_id
            if granted.get(credential_id, 0) > 0:
                granted[credential_id] -= 1
                errands.append(errand)
            else:
                others.append(errand)
        return errands, others

    def _ask(self, errand: _Errand, round_: Round) -> Ask:
        first = errand.members[0]
        account = round_.opened[first.credential_id, first.provider]
        if isinstance(account, Problem):
            raise TypeError("a credential that cannot be opened is answered for before anything is asked")
        provider = REGISTRY[first.provider]
        if errand.first is not None:
            question = errand.first[1]
        elif errand.many:
            question = provider.batch_question(account, [Subject(a.task_id, a.kind) for a in errand.members])
        else:
            question = provider.question(account, Subject(first.task_id, first.kind))
        method, url, headers, body = question
        return Ask(errand, method, url, headers, body, DEADLINE, round_.host(account.base_url))

    def _read(self, answer: Answer, at: datetime, round_: Round) -> tuple[list[Observed], list[_Errand]]:
        errand: _Errand = answer.ask.key
        first, *others = errand.members
        provider = REGISTRY[first.provider]
        response = Response(
            answer.status, answer.headers, answer.body, at, answer.failure, answer.detail, answer.ask.url
        )
        if errand.many:
            seen = provider.read_batch([Subject(a.task_id, a.kind) for a in errand.members], response)
            return self._spread(errand.members, seen, round_)
        if errand.first is not None:
            return [(first, cast(TwoSteps, provider).read_second(errand.first[0], response), errand.first[2])], []
        observed = (first, provider.read(Subject(first.task_id, first.kind), response), answer.body)
        second = self._second(provider, observed, round_)
        if second is not None:
            return [], [second]
        if errand.suspect is None:
            return [observed], []
        if isinstance(observed[1], Seen):
            round_.without_batch.setdefault(first.credential_id, BATCH_PATH_FAILED)
            return [observed], []
        return [observed, *_told(others, errand.suspect)], _singly(others, errand.suspect)

    @staticmethod
    def _second(provider: Provider, observed: Observed, round_: Round) -> _Errand | None:
        """The question that the answer about a completed task leads to, where it does not hold the links itself."""
        a, seen, body = observed
        if (
            not isinstance(seen, Seen)
            or seen.state is not State.COMPLETED
            or seen.outputs
            or not isinstance(provider, TwoSteps)
        ):
            return None
        account = round_.opened[a.credential_id, a.provider]
        question = None if isinstance(account, Problem) else provider.second_question(account, seen)
        return None if question is None else _Errand([a], first=(seen, question, body))

    @staticmethod
    def _spread(
        members: list[Asked], seen: Mapping[str, Observation] | None, round_: Round
    ) -> tuple[list[Observed], list[_Errand]]:
        if seen is None:
            round_.without_batch[members[0].credential_id] = NO_BATCH_PATH
            return [], []
        if all(_is_suspicious(o) for o in seen.values()):
            return [], [_Errand(sorted(members, key=_waited), suspect=seen)]
        return _told(members, seen), _singly(members, seen)


def _first(errands: list[_Errand], paid: int) -> list[_Errand]:
    """As many as were paid for."""
    return errands if len(errands) <= paid else sorted(errands, key=_turn)[:paid]


def _turn(errand: _Errand) -> tuple[int, float]:
    return min(map(_waited, errand.members))


def _waited(a: Asked) -> tuple[int, float]:
    """Sorts by turn: who did not fail comes first, and of these who waits longest, so that nobody always comes last."""
    return a.failures, a.clock if a.watched is None else a.watched


def _told(members: list[Asked], seen: Mapping[str, Observation]) -> list[Observed]:
    """What a batch answer says of its members."""
    return [(a, seen[a.task_id], b"") for a in members if a.task_id in seen]


def _singly(members: list[Asked], seen: Mapping[str, Observation]) -> list[_Errand]:
    """Questions about those that a batch answer left out."""
    return [_Errand([a]) for a in members if a.task_id not in seen]


def _is_suspicious(observation: Observation) -> bool:
    return isinstance(observation, Problem) and observation.code in SUSPICIOUS
