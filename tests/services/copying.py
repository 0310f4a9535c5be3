"""Ground for the tests of stored copies: a generation that is completed, a file server and a relay on real sockets."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tests.couriers.files import Files
from tracker import wiring
from tracker.core.addresses import Policy
from tracker.core.generation import Generation, Output
from tracker.couriers.download import Limits
from tracker.couriers.store import ArtifactStore, store_at
from tracker.net.fetch import Fetcher, Fetchers
from tracker.net.guard import GuardedSession
from tracker.services.downloading import Downloading
from tracker.services.forms import CredentialForm, RegistrationForm
from tracker.services.keeping import Keeping
from tracker.services.links import Links
from tracker.services.storing import Copies, remover
from tracker.store import artifacts, db, generations

LOOPBACK = Policy.of(["127.0.0.0/8", "::1/128"])


@dataclass
class Many:
    """A server that has a behaviour for each path, and counts what was asked for."""

    paths: dict[str, Callable[[socket.socket, bytes], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, wire: socket.socket, request: bytes) -> None:
        found = re.match(rb"[A-Z]+ (\S+) ", request)
        place = found[1].decode() if found else ""
        self.asked.append(place)
        self.paths.get(place.partition("?")[0], status(404))(wire, request)


def status(code: int, body: bytes = b"", media_type: str = "text/plain") -> Callable[[socket.socket, bytes], None]:
    answer = f"HTTP/1.1 {code} So\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    return lambda wire, _: wire.sendall(answer)


def answering(answer: Any) -> Callable[[socket.socket, bytes], None]:
    return status(200, json.dumps(answer).encode(), "application/json")


@dataclass
class Ground:
    """One project with its copies. `worker()` makes what a download worker has."""

    services: wiring.Services
    store: ArtifactStore
    project_id: UUID
    project: str = "default"

    def completed(self, *outputs: Output, task: str = "task-1", answer: Any = None) -> Generation:
        """A generation that has ended well, whose copies are wished."""
        made = self.services.registration.register(
            self.project_id, RegistrationForm(provider="luma", task_id=task, download=True)
        ).generation
        listed = json.dumps([{name: getattr(o, name) for name in Output.__dataclass_fields__} for o in outputs])
        with self.services.database.transaction() as tx:
            tx.execute(
                text(
                    "UPDATE generations SET state = 'completed', finished_at = now(), outputs = CAST(:outputs AS jsonb) WHERE id = :id"
                ),
                {"id": made.id, "outputs": listed},
            )
            if answer is not None:
                generations.keep_answers(tx, [(made.id, json.dumps(answer).encode())], db.now(tx))
            artifacts.wish(tx, [(made, output) for output in outputs], db.now(tx))
        return self.services.generations.get(self.project_id, made.id)

    def worker(self, *, limits: Limits | None = None, at_once: int = 4, by_content: bool = False) -> Downloading:
        s = self.services
        return Downloading(
            s.database, s.bell, session=cache(lambda: GuardedSession(LOOPBACK)),
            links=Links(s.database, s.vault, Fetchers(lambda: Fetcher(LOOPBACK))), store=self.store,
            copies=Copies(s.database, s.bell, self.store, base_url="http://127.0.0.1:8000", by_content=by_content),
            limits=limits or Limits(reserve=1024), at_once=at_once,
        )  # fmt: skip

    def keeping(self, *, by_content: bool = False) -> Keeping:
        return Keeping(self.services.database, self.store, remover(self.store), by_content=by_content)

    def row(self, g: Generation, kind: str = "video", index: int = 0) -> Any:
        with self.services.database.transaction() as tx:
            return artifacts.get(tx, g.id, kind, index)

    def due_now(self) -> None:
        """As if the waits were over."""
        with self.services.database.transaction() as tx:
            tx.execute(text("UPDATE artifacts SET due_at = now() - interval '1 s' WHERE state = 'pending'"))

    def until_settled(self, worker: Downloading, g: Generation, tries: int = 20) -> Any:
        """Work through every wait until the copy is stored or failed; the row."""
        for _ in range(tries):
            worker.fetch_due()
            if self.row(g).state != "pending":
                break
            self.due_now()
        return self.row(g)

    def partials(self) -> list[str]:
        return sorted(path.name for path in self.store.spool.folder.glob("*.part"))


def ground(services: wiring.Services, relay_url: str = "http://127.0.0.1:9") -> Ground:
    project_id = services.keys.project().project_id
    services.credentials.put(
        project_id, "default", CredentialForm(providers=["luma"], base_url=relay_url, api_key="sk-secret")
    )
    store = store_at(services.settings.artifacts, services.settings.home / "spool")
    return Ground(services, store, project_id)


def video(server: Any, place: str = "film.mp4", index: int = 0, kind: str = "video") -> Output:
    return Output(kind, index, f"{server.url}{place}")


def film(**fields: Any) -> Files:
    return Files(**fields)
