"""Links to a provider's files that work now: the stored one, a better one, or a fresh one from the provider; and the headers they need.

Asks the provider at most once per call, and one worker at a time per generation. Fetches no file.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from tracker.core import ids, links
from tracker.core.observation import Seen
from tracker.core.urls import host_of
from tracker.couriers.download import DownloadError
from tracker.errors import ConfigurationError
from tracker.net.fetch import Answer, Ask, Fetchers
from tracker.providers import REGISTRY
from tracker.providers.base import Account, BetterLinks, KeyedFiles, Question, Response, Subject, TwoSteps
from tracker.store import artifacts, credentials, db, generations
from tracker.store.artifacts import Wanted
from tracker.store.db import Database
from tracker.store.vault import Vault

log = logging.getLogger(__name__)

SOON = timedelta(seconds=15)
"""A link that ends within this is asked for anew first: the request must still begin under it."""
BETTER_TRIES = 3
"""Tries that fail because the better link is not to be had now; then the plain one must do, before it ends too."""
DEADLINE = 20.0
_LATER = frozenset({408, 425, 429})

Key = tuple[str, int]


class BusyError(Exception):
    """Another worker asks for this generation's links at this moment."""


class Links:
    """`fetchers` belong to this process."""

    def __init__(self, database: Database, vault: Vault, fetchers: Fetchers) -> None:
        self._database, self._vault, self._fetchers = database, vault, fetchers

    def ready(self, wanted: Wanted) -> str:
        """The link to begin with. DownloadError while a better one is worth waiting for; BusyError."""
        ends = links.expires_at(wanted.source_url)
        if ends is not None and ends <= wanted.now + SOON:
            return self.fresh(wanted, wanted.source_url) or wanted.source_url
        if wanted.refreshed or not isinstance(REGISTRY.get(wanted.provider), BetterLinks):
            return wanted.source_url
        with self._database.transaction() as tx:
            answer, at = generations.answer(tx, wanted.generation_id), db.now(tx)
        account = self._account(wanted)
        better = self._better(wanted, account, answer or b"", at) if account else None
        if better is None:
            return wanted.source_url
        with self._database.transaction() as tx:
            artifacts.fresh_links(tx, wanted, {(wanted.kind, wanted.index): better}, db.now(tx))
        return better

    def fresh(self, wanted: Wanted, tried: str) -> str | None:
        """A link that is not `tried`, from the provider or from whoever asked it just now; None when it gives no other. BusyError."""
        with self._database.transaction() as tx:
            at = db.now(tx)
            stored, ours = artifacts.ask_alone(tx, wanted, tried, at)
        if stored != tried:
            return stored
        if not ours:
            raise BusyError
        found: dict[Key, str] = {}
        try:
            found = self._asked(wanted, at)
        finally:
            with self._database.transaction() as tx:
                artifacts.fresh_links(tx, wanted, found, db.now(tx))
        given = found.get((wanted.kind, wanted.index), tried)
        log.info(
            "%s: the provider gives %s link", wanted.name, "no other" if given == tried else "a fresh",
            extra={"generation": ids.public("gen", wanted.generation_id)},
        )  # fmt: skip
        return None if given == tried else given

    def headers(self, wanted: Wanted, url: str) -> dict[str, str]:
        """What the provider wants to see with a request for this link; nothing for any other host than the credential's own."""
        provider = REGISTRY.get(wanted.provider)
        if not isinstance(provider, KeyedFiles):
            return {}
        account = self._account(wanted)
        if account is None or _origin(url) != _origin(account.base_url):
            return {}
        return dict(provider.download_headers(account, url))

    def _asked(self, wanted: Wanted, at: datetime) -> dict[Key, str]:
        account = self._account(wanted)
        if account is None:
            return {}
        provider, subject = REGISTRY[wanted.provider], Subject(wanted.task_id, wanted.task_kind)
        answer = self._ask(account, provider.question(account, subject))
        seen = provider.read(subject, _response(answer, at))
        if isinstance(seen, Seen) and not seen.outputs and isinstance(provider, TwoSteps):
            second = provider.second_question(account, seen)
            seen = seen if second is None else provider.read_second(seen, _response(self._ask(account, second), at))
        found = {(o.kind, o.index): o.url for o in seen.outputs} if isinstance(seen, Seen) else {}
        better = self._better(wanted, account, answer.body, at) if found else None
        return found | ({(wanted.kind, wanted.index): better} if better else {})

    def _better(self, wanted: Wanted, account: Account, answer: bytes, at: datetime) -> str | None:
        provider = REGISTRY[wanted.provider]
        if not isinstance(provider, BetterLinks):
            return None
        question = provider.link_question(account, Subject(wanted.task_id, wanted.task_kind), wanted.kind, answer)
        if question is None:
            return None
        said = self._ask(account, question)
        link = provider.read_link(_response(said, at))
        passing = said.failure is not None or said.status >= 500 or said.status in _LATER  # noqa: PLR2004 - HTTP's own
        if link is None and passing and wanted.attempts < BETTER_TRIES:
            raise DownloadError("http_status", "the provider's better link for this file cannot be had now")
        return link

    def _ask(self, account: Account, question: Question) -> Answer:
        ask = Ask(
            key=None, method=question.method, url=question.url, headers=question.headers, body=question.body,
            deadline=DEADLINE, host_allowed=host_of(account.base_url),
        )  # fmt: skip
        (slice_,) = self._fetchers.fetch([ask])
        return slice_[0]

    def _account(self, wanted: Wanted) -> Account | None:
        """The account that the generation belongs to; None when it is gone or cannot be opened."""
        with self._database.transaction() as tx:
            credential, at = credentials.by_id(tx, [wanted.credential_id]).get(wanted.credential_id), db.now(tx)
        if credential is None or wanted.provider not in REGISTRY:
            return None
        try:
            key = None if credential.api_key is None else self._vault.decrypt(credential.api_key)
        except ConfigurationError as wrong:
            log.warning("%s", wrong)
            return None
        return Account(credential.base_url or REGISTRY[wanted.provider].default_base_url, key, at.timestamp())


def _origin(url: str) -> tuple[bool, str]:
    return url.lower().startswith("https:"), host_of(url)


def _response(answer: Answer, at: datetime) -> Response:
    return Response(answer.status, answer.headers, answer.body, at, answer.failure, answer.detail, answer.ask.url)
