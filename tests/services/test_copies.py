"""Durable copies through the whole chain: wished, stored, told once, served, linked, deleted with their generation."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tracker.core.generation import Generation
from tracker.errors import NotFoundError, UnauthorizedError

from .conftest import Place, Relay


def _completed(place: Place, relay: Relay, *, download: Any = True, **wish: Any) -> tuple[Generation, str]:
    task = relay.create(age=100, duration=1, **wish)
    g = place.register(task, download=download)
    place.poll()
    return g, task


def _fetch(place: Place) -> int:
    return place.services.downloading.fetch_due()


def _files(place: Place) -> list[Path]:
    return [path for path in place.services.settings.home.rglob("*") if path.is_file()]


def test_every_output_is_stored_whole_and_told_once(place: Place, relay: Relay) -> None:
    g, task = _completed(place, relay)
    assert [(a.kind, a.state) for a in place.get(g).artifacts] == [
        (kind, "pending") for kind in ("video", "video_raw", "thumbnail", "last_frame")
    ]
    assert _fetch(place) == 4
    truth = relay.call(f"generations/{task}")["files"]
    after = place.get(g)
    names = {"video": "video.mp4", "video_raw": "raw.mp4", "thumbnail": "thumbnail.jpg", "last_frame": "last_frame.jpg"}
    for copy in after.artifacts:
        assert (copy.state, copy.sha256) == ("stored", truth[names[copy.kind]])
        found = place.services.artifacts.find(place.project, g.id, copy.kind, 0)
        stored = b"".join(place.services.artifacts.read(found))
        assert len(stored) == copy.size == copy.bytes_done
        assert hashlib.sha256(stored).hexdigest() == copy.sha256
        assert b"".join(place.services.artifacts.read(found, 10, 20)) == stored[10:20]
    assert place.types(g) == ["registered", "completed", *["artifact.stored"] * 4, "artifacts.done"]
    assert after.version == after.sequence == 7
    assert not [path for path in _files(place) if path.suffix == ".part"], "no partial file is left"
    assert _fetch(place) == 0


def test_only_what_was_wished_and_more_can_be_wished_later(place: Place, relay: Relay) -> None:
    g, _ = _completed(place, relay, download=["thumbnail"])
    assert _fetch(place) == 1
    assert [a.kind for a in place.get(g).artifacts] == ["thumbnail"]
    place.services.generations.download(place.project, g.id, ["video"])
    assert _fetch(place) == 1
    assert [a.kind for a in place.get(g).artifacts] == ["video", "thumbnail"]
    place.services.generations.download(place.project, g.id, None)
    assert _fetch(place) == 2
    wished = place.register(relay.create(age=100, duration=1))
    place.services.generations.download(place.project, wished.id, ["video"])
    place.poll()
    assert _fetch(place) == 1, "wished before the end, stored at the end"


def test_deleting_a_generation_deletes_its_copies(place: Place, relay: Relay) -> None:
    g, _ = _completed(place, relay)
    _fetch(place)
    assert _files(place)
    place.services.generations.delete(place.project, g.id)
    assert _files(place) == []
    with pytest.raises(NotFoundError):
        place.services.artifacts.list(place.project, g.id)


def test_a_link_needs_no_key_and_expires(place: Place, relay: Relay) -> None:
    g, _ = _completed(place, relay, download=["thumbnail"])
    _fetch(place)
    artifacts = place.services.artifacts
    url, until_ = artifacts.link(place.project, g.id, "thumbnail", 0)
    fields = dict(part.split("=") for part in url.partition("?")[2].split("&"))
    expires, signature = int(fields["expires"]), fields["signature"]
    assert expires == int(until_.timestamp())
    assert artifacts.open_link(g.id, "thumbnail", 0, expires=expires, signature=signature).artifact.state == "stored"
    for wrong in (
        {"expires": expires + 1, "signature": signature},
        {"expires": expires, "signature": "ü" * 64},
        {"expires": expires, "signature": signature[:-1]},
    ):
        with pytest.raises(UnauthorizedError):
            artifacts.open_link(g.id, "thumbnail", 0, **wrong)
    place.ahead(3601)
    with pytest.raises(UnauthorizedError, match="expired"):
        artifacts.open_link(g.id, "thumbnail", 0, expires=expires, signature=signature)
