"""Asking a provider about claimed generations: one request for many where it can, singly where it cannot. No transaction is open here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.core.urls import host_of
from tracker.errors import ConfigurationError
from tracker.net.fetch import Answer, Ask, Fetcher
from tracker.providers import REGISTRY
from tracker.providers.base import Account, Response, Subject
from tracker.store.credentials import Credential
from tracker.store.due import Asked
from tracker.store.vault import Vault

AT_ONCE = 500
"""Requests in flight per batch; the credentials' own bounds were kept by the claim."""
DEADLINE = 15.0
"""Seconds for one answer, everything included. Relays that take longer are asked again later."""
SUSPICIOUS = frozenset({ProblemCode.HTTP_ERROR, ProblemCode.UNREADABLE})
"""Problems of a whole batch that may be the batch path's alone: one of its members, asked singly, tells."""

Observed = tuple[Asked, Observation, bytes]
"""A generation, what was seen of it, and the answer's body where it is about this one alone."""


@dataclass(frozen=True, slots=True)
class _Errand:
    """What one request is about: one generation, or many.

    `suspect` holds what a whole batch was answered with; its first member is then asked singly.
    """

    members: list[Asked]
    many: bool = False
    suspect: Mapping[str, Observation] | None = None


@dataclass
class Round:
    """One batch message's questions: who is asked with which account, and what was learned about the accounts."""

    accounts: Mapping[int, Credential]
    now: Callable[[], datetime]
    opened: dict[tuple[int, str], Account | Problem] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    paid: Mapping[int, int] = field(default_factory=dict)
    """Requests that the claim paid for, by credential."""
    without_batch: set[int] = field(default_factory=set)
    """Credentials whose relay turned out to have no (working) batch path."""
    released: list[Asked] = field(default_factory=list)
    """Claimed, but not asked about: asking them singly would break the budget. They are due again at once."""
    extra: Counter[int] = field(default_factory=Counter)
    """Requests made beyond what was paid for, by credential."""

    def host(self, base_url: str) -> str:
        """`host:port` of an account: taken apart once, not for every question."""
        found = self.hosts.get(base_url)
        if found is None:
            found = self.hosts[base_url] = host_of(base_url)
        return found


class Asking:
    """`fetcher` belongs to this process."""

    def __init__(self, vault: Vault, fetcher: Callable[[], Fetcher]) -> None:
        self._vault, self._fetcher = vault, fetcher

    def observe(self, asked: Sequence[Asked], round_: Round) -> Iterator[list[Observed]]:
        """What is seen of each, in slices as answers arrive; every generation is answered for once, or released."""
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
        while errands:
            asks, errands = [self._ask(errand, round_) for errand in errands], []
            for answers in self._fetcher().fetch(asks, at_once=AT_ONCE):
                slice_: list[Observed] = []
                at = round_.now()
                for answer in answers:
                    seen, left = self._read(answer, at, round_)
                    slice_ += seen
                    errands += left
                if slice_:
                    yield slice_

    def _account(self, a: Asked, round_: Round) -> Account | Problem:
        key = (a.credential_id, a.provider)
        if key not in round_.opened:
            round_.opened[key] = self._open(round_.accounts[a.credential_id], a.provider)
        return round_.opened[key]

    def _open(self, credential: Credential, provider: str) -> Account | Problem:
        try:
            key = None if credential.api_key is None else self._vault.decrypt(credential.api_key)
        except ConfigurationError as wrong:
            return Problem(ProblemCode.UNDECRYPTABLE, str(wrong))
        return Account(credential.base_url or REGISTRY[provider].default_base_url, key)

    @staticmethod
    def _errands(asked: Sequence[Asked], round_: Round) -> list[_Errand]:
        def account_of(a: Asked) -> tuple[int, str, str]:
            return a.credential_id, a.provider, a.kind or ""

        errands: list[_Errand] = []
        for (credential_id, provider, _), group in groupby(sorted(asked, key=account_of), key=account_of):
            members = list(group)
            size = min(REGISTRY[provider].batch_size, round_.accounts[credential_id].batch_size)
            if size > 1 and len(members) > 1:
                errands += [_Errand(members[i : i + size], many=True) for i in range(0, len(members), size)]
                continue
            # The claim may have counted on a batch path that is known to be missing by now.
            paid = round_.paid.get(credential_id, len(members))
            errands += [_Errand([a]) for a in members[:paid]]
            round_.released += members[paid:]
        return errands

    def _ask(self, errand: _Errand, round_: Round) -> Ask:
        first = errand.members[0]
        account = round_.opened[first.credential_id, first.provider]
        if isinstance(account, Problem):
            raise TypeError("a credential that cannot be opened is answered for before anything is asked")
        provider = REGISTRY[first.provider]
        if errand.many:
            question = provider.batch_question(account, [Subject(a.task_id, a.kind) for a in errand.members])
        else:
            question = provider.question(account, Subject(first.task_id, first.kind))
        return Ask(
            key=errand, method=question.method, url=question.url, headers=question.headers, body=question.body,
            deadline=DEADLINE, host_allowed=round_.host(account.base_url),
        )  # fmt: skip

    def _read(self, answer: Answer, at: datetime, round_: Round) -> tuple[list[Observed], list[_Errand]]:
        errand: _Errand = answer.ask.key
        first, *others = errand.members
        provider = REGISTRY[first.provider]
        response = Response(answer.status, answer.headers, answer.body, at, answer.failure, answer.detail)
        if errand.many:
            seen = provider.read_batch([Subject(a.task_id, a.kind) for a in errand.members], response)
            return self._spread(errand.members, seen, round_)
        observed = (first, provider.read(Subject(first.task_id, first.kind), response), answer.body)
        if errand.suspect is None:
            return [observed], []
        if isinstance(observed[1], Seen):
            round_.without_batch.add(first.credential_id)
            round_.released += others
            return [observed], []
        said = errand.suspect
        known: list[Observed] = [(a, said[a.task_id], b"") for a in others if a.task_id in said]
        return [observed, *known], self._singly([a for a in others if a.task_id not in said], round_)

    def _spread(
        self, members: list[Asked], seen: Mapping[str, Observation] | None, round_: Round
    ) -> tuple[list[Observed], list[_Errand]]:
        if seen is None:
            round_.without_batch.add(members[0].credential_id)
            round_.released += members
            return [], []
        if all(_is_suspicious(o) for o in seen.values()):
            round_.extra[members[0].credential_id] += 1
            return [], [_Errand(members, suspect=seen)]
        found: list[Observed] = [(a, seen[a.task_id], b"") for a in members if a.task_id in seen]
        return found, self._singly([a for a in members if a.task_id not in seen], round_)

    @staticmethod
    def _singly(members: list[Asked], round_: Round) -> list[_Errand]:
        """Ask for those that a batch left out; the budget is charged for it afterwards."""
        for a in members:
            round_.extra[a.credential_id] += 1
        return [_Errand([a]) for a in members]


def _is_suspicious(observation: Observation) -> bool:
    return isinstance(observation, Problem) and observation.code in SUSPICIOUS
