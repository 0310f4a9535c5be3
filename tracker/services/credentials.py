"""Provider accounts: stored by hand or given by the environment; paused, resumed, tested, and woken by callbacks."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from tracker import bell, providers
from tracker.core.addresses import Policy, check_url
from tracker.core.generation import ErrorCode, Failure, Generation, State
from tracker.core.lifecycle import FINAL
from tracker.core.observation import Problem, ProblemCode
from tracker.core.pausing import Health
from tracker.core.urls import host_of
from tracker.errors import ConflictError, FieldProblem, InvalidError, NotFoundError
from tracker.net.fetch import Ask, Fetchers
from tracker.providers.base import Account, Response, Subject
from tracker.services import steps
from tracker.services.forms import CredentialForm
from tracker.services.recording import change_health
from tracker.settings import Settings
from tracker.store import credentials, db, generations, outbox, schedule
from tracker.store.credentials import Credential
from tracker.store.db import Database, Transaction
from tracker.store.vault import Vault

SIMULATOR = "simulator"
"""Name of the credential that the built-in relay simulator is offered under."""
PROBE_TASK = "00000000-0000-4000-8000-000000000000"
"""A task that no provider has: asking about it shows whether the key is good without touching anything."""


POLLING = frozenset({"poll_price", "poll_longest"})
"""Fields that every generation of the credential carries on the schedule, unless it has its own."""


class Credentials:
    """`policy` says which base URLs are acceptable; `fetchers` are for `test`."""

    def __init__(
        self,
        database: Database,
        vault: Vault,
        bell_: bell.Bell,
        policy: Policy,
        fetchers: Fetchers,
        *,
        base_url: str,
    ) -> None:
        self._database, self._vault, self._bell = database, vault, bell_
        self._policy, self._fetchers, self._base_url = policy, fetchers, base_url

    def put(self, project_id: UUID, name: str, form: CredentialForm, *, force: bool = False) -> Credential:
        """Store a credential, or change the fields that were sent. ConflictError for a new base URL while generations are pending."""
        self._check(form)
        with self._database.transaction() as tx:
            there = self._named(tx, project_id, name)
            fields = self._fields(form)
            if there is None or there.environment_provider is not None or not there.providers:
                if "providers" not in fields:
                    raise InvalidError(FieldProblem("providers", "it is required for a new credential"))
                there = None
            elif "base_url" in fields and fields["base_url"] != there.base_url and not force:
                self._refuse_while_pending(tx, there, "changing base_url")
            steered = there is not None and not POLLING.isdisjoint(fields)
            if there is not None:
                fields.setdefault("providers", list(there.providers))
                if fields.get("base_url", there.base_url) != there.base_url:
                    fields |= _batching(fields["providers"])  # what one relay lacks another may have
                if steered:
                    # Whoever registers with it now waits for us, and then finds the new values.
                    credentials.lock(tx, there.id, against_use=True)
            token, now = secrets.token_urlsafe(24), db.now(tx)
            stored = credentials.put(
                tx, project_id=project_id, name=name, environment_provider=None, fields=fields, token=token, now=now
            )
            if steered:
                schedule.steer(tx, stored.id, now)
            return stored

    def _check(self, form: CredentialForm) -> None:
        problems = [
            FieldProblem(
                f"providers.{i}", f"there is no provider {p!r}; known are {', '.join(sorted(providers.REGISTRY))}"
            )
            for i, p in enumerate(form.providers or ())
            if p not in providers.REGISTRY
        ]
        if form.base_url is not None and (refused := check_url(form.base_url, self._policy, https_only=False)):
            problems.append(FieldProblem("base_url", refused))
        if problems:
            raise InvalidError(*problems)

    def _fields(self, form: CredentialForm) -> dict[str, Any]:
        sent = form.model_fields_set
        fields: dict[str, Any] = {
            name: getattr(form, name) for name in sent & ({"requests_per_second", "concurrency"} | POLLING)
        }
        if form.providers is not None:
            fields["providers"] = list(form.providers)
            fields |= _batching(form.providers)
        if "base_url" in sent:
            fields["base_url"] = form.base_url.rstrip("/") if form.base_url else None
        if form.api_key is not None:
            key = form.api_key.get_secret_value()
            fields |= {"api_key": self._vault.encrypt(key), "api_key_hash": self._vault.look_up_hash(key)}
        return fields

    def all(self, project_id: UUID) -> list[Credential]:
        """Every credential of a project, by name. A deleted one that history still names is not shown."""
        with self._database.transaction() as tx:
            return [c for c in credentials.of_project(tx, project_id) if c.providers]

    def get(self, project_id: UUID, name: str, provider: str | None = None) -> Credential:
        """One credential by name, and by provider where the environment gives one for each; one stored by hand comes first."""
        with self._database.transaction() as tx:
            return self._found(tx, project_id, name, provider)

    def of_generation(self, g: Generation) -> Credential | None:
        """The account that a generation is asked with; None once it was deleted."""
        with self._database.transaction() as tx:
            found = credentials.by_id(tx, [g.credential_id]).get(g.credential_id)
        return found if found is not None and found.providers else None

    def delete(self, project_id: UUID, name: str, *, force: bool = False) -> None:
        """Remove a credential. Pending generations are a conflict unless `force`, which ends them as `credential_deleted`."""
        with self._database.transaction() as tx:
            credential = self._found(tx, project_id, name)
            # Whoever registers with it now waits for us, and then finds it gone.
            credentials.lock(tx, credential.id, against_use=True)
            if credential.environment_provider is not None:
                raise ConflictError("this credential comes from the environment: unset its variables and restart")
            if not force:
                self._refuse_while_pending(tx, credential, "deleting it")
            self._end_pending(tx, credential)
            if credentials.named(tx, credential.id):
                # History names it: the account goes, its name and id stay.
                credentials.put(
                    tx, project_id=project_id, name=name, environment_provider=None, token=credential.callback_token, now=db.now(tx),
                    fields={"providers": [], "api_key": None, "api_key_hash": None, "base_url": None, **dict.fromkeys(POLLING)},
                )  # fmt: skip
                credentials.write_health(tx, credential.id, Health(), None)
            else:
                credentials.delete(tx, credential.id)
        self._bell.ring(bell.SEND, bell.WEBHOOK, because="a credential was deleted")

    def _end_pending(self, tx: Transaction, credential: Credential) -> None:
        now = db.now(tx)
        error = Failure(
            ErrorCode.CREDENTIAL_DELETED, f"the credential {credential.name!r} was deleted while this was pending"
        )
        pending = generations.lock(tx, credentials.pending_generations(tx, credential.id))
        locked = [g for g in pending if g.state not in FINAL]
        taken = [steps.moved(g, State.FAILED, now, self._base_url, error=error) for g in locked]
        generations.rewrite(tx, [step.generation for step in taken], now)
        schedule.leave(tx, [g.id for g in locked])
        outbox.publish(tx, [(step.event, step.generation) for step in taken if step.event], now)

    def resume(self, project_id: UUID, name: str, provider: str | None = None) -> list[Credential]:
        """Let every paused account of this name go on (of this provider alone, if one is named), within its budget.

        Returns those that were in trouble; all of the name when none was.
        """
        with self._database.transaction() as tx:
            found = sorted(c.id for c in self._all_found(tx, project_id, name, provider))
            locked = [c for key in found if (c := credentials.lock(tx, key)) is not None]
            troubled = [c for c in locked if c.health != Health()]
            for credential in troubled:
                change_health(tx, credential, Health(), db.now(tx))
            after = credentials.by_id(tx, [c.id for c in troubled or locked])
        self._bell.ring(bell.DISPATCH, bell.DEFAULT, because=f"{name} resumed")
        return [after[key] for key in sorted(after)]

    def test(self, project_id: UUID, name: str, provider_name: str | None = None) -> dict[str, Any]:
        """Ask the provider one harmless question with this key: `ok`, and what came back in words."""
        with self._database.transaction() as tx:
            credential, at = self._found(tx, project_id, name, provider_name), db.now(tx)
        provider = providers.get(provider_name or credential.providers[0])
        key = None if credential.api_key is None else self._vault.decrypt(credential.api_key)
        account = Account(credential.base_url or provider.default_base_url, key, at.timestamp())
        subject = Subject(PROBE_TASK, next(iter(provider.kinds), None))
        question = provider.question(account, subject)
        ask = Ask(
            key=None, method=question.method, url=question.url, headers=question.headers, body=question.body,
            host_allowed=host_of(account.base_url),
        )  # fmt: skip
        answer = next(iter(self._fetchers.fetch([ask])))[0]
        seen = provider.read(
            subject,
            Response(answer.status, answer.headers, answer.body, at, answer.failure, answer.detail, answer.ask.url),
        )
        known = not isinstance(seen, Problem) or seen.code in _KNEW_US
        message = (
            "the provider accepts the key" if known or not isinstance(seen, Problem) else f"{seen.code}: {seen.message}"
        )
        return {"ok": known, "status": answer.status or None, "message": message}

    def callback(self, provider: str, token: str, body: bytes) -> None:
        """A provider says that something happened: never trusted, it only makes the poll happen now. NotFoundError for an unknown token."""
        task_ids = list(islice(_words_in(body), 100))
        with self._database.transaction() as tx:
            credential = credentials.by_token(tx, token)
            if credential is None or provider not in credential.providers:
                raise NotFoundError("callback", "token")
            tasks = {(provider, credential.id, task_id) for task_id in task_ids}
            found = generations.of_tasks(tx, credential.project_id, tasks).values()
            # In the order of their ids, as everywhere: two callbacks must not wait for each other crosswise.
            for g in sorted(found, key=lambda g: g.id):
                schedule.ask_now(tx, g.id, db.now(tx))
        self._bell.ring(bell.DISPATCH, bell.DEFAULT, because=f"callback from {provider}")

    def callback_url(self, credential: Credential, provider: str) -> str:
        """Where this account's provider may call us."""
        return f"{self._base_url}/callbacks/{provider}/{credential.callback_token}"

    def sync_environment(self, project_id: UUID, settings: Settings, simulator_url: str | None = None) -> None:
        """Make the credentials that the environment gives those of project `default`."""
        with self._database.transaction() as tx:
            now = db.now(tx)
            # In the order in which everybody locks them; the upserts below follow another.
            for key in sorted(c.id for c in credentials.of_project(tx, project_id)):
                credentials.lock(tx, key)
            for provider, account in settings.accounts.items():
                fields = self._fields(
                    CredentialForm(providers=[provider], base_url=account.base_url, api_key=account.api_key)
                )
                self._put_environment(tx, project_id, "default", provider, fields, now)
            if simulator_url is not None:
                fields = self._fields(CredentialForm(providers=["luma"], base_url=simulator_url))
                fields |= {"api_key": self._vault.encrypt(SIMULATOR), "requests_per_second": 200.0, "concurrency": 200}
                self._put_environment(tx, project_id, SIMULATOR, "luma", fields, now)

    @staticmethod
    def _put_environment(  # noqa: PLR0917 - one private call for both sources
        tx: Transaction, project_id: UUID, name: str, provider: str, fields: dict[str, Any], now: datetime
    ) -> None:
        token = secrets.token_urlsafe(24)
        credentials.put(
            tx, project_id=project_id, name=name, environment_provider=provider, fields=fields, token=token, now=now
        )

    @staticmethod
    def _refuse_while_pending(tx: Transaction, credential: Credential, doing: str) -> None:
        count = len(credentials.pending_generations(tx, credential.id))
        if count:
            raise ConflictError(
                f"{count} generations are pending with it; {doing} needs ?force=true",
                count=count,
                code="pending_generations",
            )

    @staticmethod
    def _named(tx: Transaction, project_id: UUID, name: str) -> Credential | None:
        return next((c for c in credentials.of_project(tx, project_id) if c.name == name), None)

    def _found(self, tx: Transaction, project_id: UUID, name: str, provider: str | None = None) -> Credential:
        return self._all_found(tx, project_id, name, provider)[0]

    @staticmethod
    def _all_found(tx: Transaction, project_id: UUID, name: str, provider: str | None) -> list[Credential]:
        found = [
            c
            for c in credentials.of_project(tx, project_id)
            if c.name == name and c.providers and provider in {None, *c.providers}
        ]
        if not found:
            raise NotFoundError("credential", name if provider is None else f"{name} of {provider}")
        return found


_KNEW_US = frozenset({ProblemCode.NOT_FOUND, ProblemCode.UNKNOWN_STATUS, ProblemCode.NO_OUTPUT})
"""Whatever it says of the task: the key is good."""


def _batching(served: Sequence[str]) -> dict[str, Any]:
    """How many ids one request can carry, as far as is known of an account that was never asked."""
    sizes = providers.batch_sizes()
    return {"batch_size": min(sizes.get(p, 1) for p in served), "no_batch_until": None}


def _words_in(body: bytes) -> Any:
    """Every string in a JSON body that could be a task id, wherever it stands: providers nest it differently."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and 4 <= len(value) <= 512 and value.isprintable():  # noqa: PLR2004 - shorter is no id, longer neither
            yield value
