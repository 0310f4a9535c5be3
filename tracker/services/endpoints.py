"""Webhook endpoints and signing secrets: what receivers' owners do."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tracker import bell
from tracker.core import ids, signing
from tracker.core.addresses import Policy, check_url
from tracker.core.events import EventType
from tracker.core.urls import host_of
from tracker.errors import FieldProblem, InvalidError, NotFoundError
from tracker.providers import REGISTRY
from tracker.services import steps
from tracker.services.forms import EndpointChange, EndpointForm
from tracker.services.recovery import Recovered, Recovery
from tracker.store import db, deliveries, endpoints, events, outbox, replay
from tracker.store.db import Database, Transaction
from tracker.store.endpoints import Endpoint
from tracker.store.vault import Vault

BY_HAND = 0
"""The lane of what somebody waits for: before all others, and past an open circuit."""
CLEARED_AT_ONCE = 20_000
"""Deliveries looked at by one statement while an endpoint is being deleted."""
NONE_BEFORE = timedelta(hours=1)
"""No delivery's id is older than its endpoint by so much, whatever clocks and long transactions do."""
BEING_DELETED = "it is being deleted; delete it again should it stay"


class Endpoints:
    """`policy` says which URLs are acceptable."""

    def __init__(self, database: Database, vault: Vault, bell_: bell.Bell, policy: Policy, recovery: Recovery) -> None:
        self._database, self._vault, self._bell, self._policy = database, vault, bell_, policy
        self._recovery = recovery

    def create(self, project_id: UUID, form: EndpointForm) -> Endpoint:
        """Store an endpoint with a fresh secret."""
        self._check(form)
        with self._database.transaction() as tx:
            now = db.now(tx)
            blank = Endpoint(
                id=ids.uuid7(now), project_id=project_id, url=form.url, description="",
                events=(), tags=(), providers=(), headers=None,
                header_names=(), rate_limit=None, schedule=None, ca=None, enabled=True, disabled_reason=None,
                created_at=now, updated_at=now,
            )  # fmt: skip
            made = endpoints.insert(tx, self._filled(blank, form, set(type(form).model_fields), now), host_of(form.url))
            self._add_secret(tx, project_id, made.id, now)
        return made

    def _check(self, form: EndpointForm) -> None:
        problems = []
        if form.url and (refused := check_url(form.url, self._policy, https_only=True)):
            problems.append(FieldProblem("url", refused))
        problems += [
            FieldProblem(f"providers.{i}", f"there is no provider {p!r}")
            for i, p in enumerate(form.providers)
            if p not in REGISTRY
        ]
        if problems:
            raise InvalidError(*problems)

    def _filled(self, endpoint: Endpoint, form: EndpointForm, sent: set[str], now: datetime) -> Endpoint:
        given: dict[str, Any] = {
            name: getattr(form, name) for name in sent & {"url", "description", "rate_limit", "ca", "enabled"}
        }
        given |= {name: tuple(getattr(form, name)) for name in sent & {"events", "tags", "providers"}}
        if "schedule" in sent:
            given["schedule"] = None if form.schedule is None else tuple(form.schedule)
        if "headers" in sent:
            given["headers"] = self._vault.encrypt(json.dumps(form.headers)) if form.headers else None
            given["header_names"] = tuple(form.headers)
        if given.get("enabled"):
            given["disabled_reason"] = None
        elif given.get("enabled") is False and endpoint.enabled:
            given["disabled_reason"] = "disabled by its owner"
        return replace(endpoint, updated_at=now, **given)

    def page(self, project_id: UUID, before: UUID | None, limit: int) -> tuple[list[Endpoint], UUID | None]:
        """Newest first, and the id before which the next page begins."""
        with self._database.transaction() as tx:
            found = endpoints.newest(tx, project_id, before, limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def get(self, project_id: UUID, endpoint_id: UUID) -> Endpoint:
        """One endpoint."""
        with self._database.transaction() as tx:
            return self._found(tx, project_id, endpoint_id)

    def edit(self, project_id: UUID, endpoint_id: UUID, change: EndpointChange) -> Endpoint:
        """Change the fields that were sent. What still waits goes to the new URL."""
        self._check(change)
        if "url" in change.model_fields_set and not change.url:
            raise InvalidError(FieldProblem("url", "it must not be empty"))
        with self._database.transaction() as tx:
            endpoint = self._found(tx, project_id, endpoint_id, lock=True)
            endpoints.update(tx, self._filled(endpoint, change, change.model_fields_set, db.now(tx)))
            if endpoint.enabled and change.enabled is False:
                replay.end(tx, endpoint_id)  # upkeep ends what waits
            if change.model_fields_set & {"url", "ca", "enabled"}:
                endpoints.revive(tx, endpoint_id)
            return self._found(tx, project_id, endpoint_id)

    def delete(self, project_id: UUID, endpoint_id: UUID) -> None:
        """Remove an endpoint with its deliveries. What breaks off midway leaves it disabled; deleting it again goes on."""
        with self._database.transaction() as tx:
            endpoint = self._found(tx, project_id, endpoint_id, lock=True)
            endpoints.update(tx, replace(endpoint, enabled=False, disabled_reason=BEING_DELETED, updated_at=db.now(tx)))
            replay.end(tx, endpoint_id)
        # Millions would take longer than any one statement may. From now on none is added.
        place: UUID | None = ids.uuid7(endpoint.created_at - NONE_BEFORE, noise=0)
        while place is not None:
            with self._database.transaction() as tx:
                place = deliveries.clear(tx, project_id, endpoint_id, place, CLEARED_AT_ONCE)
        with self._database.transaction() as tx:
            self._found(tx, project_id, endpoint_id, lock=True)
            deliveries.hold(tx, endpoint_id)
            endpoints.delete(tx, project_id, endpoint_id)

    def secret(self, project_id: UUID, endpoint_id: UUID) -> str:
        """The secret that signs for an endpoint now."""
        with self._database.transaction() as tx:
            self._found(tx, project_id, endpoint_id)
            stored = endpoints.secrets(tx, project_id, endpoint_id, db.now(tx))
        return self._vault.decrypt(stored[0])

    def rotate_secret(self, project_id: UUID, endpoint_id: UUID) -> str:
        """A new secret; the old one signs beside it for 24 h."""
        with self._database.transaction() as tx:
            self._found(tx, project_id, endpoint_id, lock=True)
            return self._add_secret(tx, project_id, endpoint_id, db.now(tx))

    def project_secret(self, project_id: UUID) -> str:
        """The secret that signs for all of a project's `webhook_url`s."""
        with self._database.transaction() as tx:
            return self._vault.decrypt(endpoints.secrets(tx, project_id, None, db.now(tx))[0])

    def rotate_project_secret(self, project_id: UUID) -> str:
        """A new project secret; the old one signs beside it for 24 h."""
        with self._database.transaction() as tx:
            return self._add_secret(tx, project_id, None, db.now(tx))

    def sealed(self) -> list[bytes]:
        """Every stored secret and header of all projects, as it is encrypted."""
        with self._database.transaction() as tx:
            return endpoints.sealed(tx)

    def _add_secret(self, tx: Transaction, project_id: UUID, endpoint_id: UUID | None, now: datetime) -> str:
        secret = signing.new_secret()
        endpoints.add_secret(
            tx,
            secret_id=ids.uuid7(now),
            project_id=project_id,
            endpoint_id=endpoint_id,
            secret=self._vault.encrypt(secret),
            now=now,
        )
        return secret

    def test(self, project_id: UUID, endpoint_id: UUID) -> UUID:
        """Send a `ping`; returns the delivery."""
        with self._database.transaction() as tx:
            endpoint, now = self._found(tx, project_id, endpoint_id), db.now(tx)
            ping = steps.of_project(EventType.PING, project_id, {"endpoint_id": ids.public("ep", endpoint_id)}, now)
            events.insert(tx, [ping])
            row = outbox.delivery(
                ping, receiver_id=endpoint.receiver_id, endpoint_id=endpoint.id, url=endpoint.url, now=now, lane=BY_HAND
            )
            deliveries.insert(tx, [row])
        self._bell.ring(bell.SEND, bell.WEBHOOK, because="1 ping")
        delivery_id: UUID = row["id"]
        return delivery_id

    def recover(self, project_id: UUID, endpoint_id: UUID, since: datetime) -> Recovered:
        """Send again what failed since then or was missed while disabled, as far as one call goes. ConflictError while disabled."""
        return self._recovery.begin(project_id, endpoint_id, since)

    @staticmethod
    def _found(tx: Transaction, project_id: UUID, endpoint_id: UUID, *, lock: bool = False) -> Endpoint:
        endpoint = endpoints.get(tx, project_id, endpoint_id, lock=lock)
        if endpoint is None:
            raise NotFoundError("endpoint", ids.public("ep", endpoint_id))
        return endpoint
