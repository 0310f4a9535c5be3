"""What a provider is to us, sans-IO: it says what to ask and reads what came back. It never opens a connection and holds no secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from typing_extensions import override

from tracker.core.observation import Observation, Seen


@dataclass(frozen=True, slots=True)
class Account:
    """Where and as whom to ask: a credential, decrypted at a time in seconds since 1970. Its repr never shows the key."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    at: float = 0.0
    """For providers whose keys only sign tokens, which are good from then on for a while."""


class Subject(NamedTuple):
    """The task that is asked about: the provider's id as its submit returned it, and the endpoint family where there are several."""

    task_id: str
    kind: str | None = None


class Question(NamedTuple):
    """One HTTP request to make. The repr leaves out the headers, which hold the key."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None = None

    @override
    def __repr__(self) -> str:
        return f"Question(method={self.method!r}, url={self.url!r})"


class Response(NamedTuple):
    """What came back. `failure` is None, or why there is no HTTP answer: dns, address, connect, tls, timeout, protocol, too_large.

    Header names are lower case. `at` is when it came, `asked` the address that was asked.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: datetime
    failure: str | None = None
    detail: str = ""
    asked: str = ""


class Provider(Protocol):
    """One provider's vocabulary. One file per provider, and one line in the registry."""

    name: str
    default_base_url: str
    kinds: tuple[str, ...]
    """Endpoint families that a registration may name in `kind`, and one batch query asks about one of; empty where there is only one."""
    batch_size: int
    """How many ids one request can ask about; 0 where the provider has no batch query."""

    def question(self, account: Account, subject: Subject) -> Question:
        """What to ask about one task."""

    def read(self, subject: Subject, response: Response) -> Observation:
        """What the answer shows of that task; never raises, whatever came."""

    def batch_question(self, account: Account, subjects: Sequence[Subject]) -> Question:
        """What to ask about many tasks at once; only called where `batch_size` > 0."""

    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:
        """Observations by task id. An id that is left out must be asked singly; None means that this relay has no batch path."""


@runtime_checkable
class TwoSteps(Protocol):
    """What a provider has besides, when the answer about a completed task does not hold the links but leads to them."""

    def second_question(self, account: Account, seen: Seen) -> Question | None:
        """What to ask for the files of this task; None when the answer leads nowhere."""

    def read_second(self, seen: Seen, response: Response) -> Observation:
        """The task with its files, or the problem that keeps them from us; never raises, whatever came."""


@runtime_checkable
class KeyedFiles(Protocol):
    """What a provider has besides, when its files are only given to those who show the account's key."""

    def download_headers(self, account: Account, url: str) -> tuple[tuple[str, str], ...]:
        """Headers for this link. They are only ever sent to the credential's own host."""


@runtime_checkable
class BetterLinks(Protocol):
    """What a provider has besides, when a second question gives a better link than the answer does."""

    def link_question(self, account: Account, subject: Subject, kind: str, answer: bytes) -> Question | None:
        """What to ask for the link of this output; None when the answer has the best one already."""

    def read_link(self, response: Response) -> str | None:
        """The link, None when it is not to be had; never raises, whatever came."""
