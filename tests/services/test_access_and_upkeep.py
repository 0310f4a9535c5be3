"""Keys, idempotency, the feed's places, health, switches: the small services."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tracker.core import ids
from tracker.errors import ForbiddenError, InvalidError, NotFoundError, UnauthorizedError
from tracker.services.forms import EndpointForm, KeyForm

from .conftest import Place, Relay


def test_a_key_opens_its_project_alone_and_is_stored_as_a_hash(place: Place) -> None:
    keys = place.services.keys
    other = keys.project("other", make=True)
    key, token = keys.create(other.project_id, KeyForm(name="ci", scopes=["read"]))
    caller = keys.authenticate(token)
    assert (caller.project, caller.project_id, caller.scopes) == ("other", other.project_id, frozenset({"read"}))
    with pytest.raises(ForbiddenError, match="write"):
        caller.require("write")
    assert token not in str(place.rows("SELECT * FROM api_keys"))
    g = place.register("t")
    with pytest.raises(NotFoundError):
        place.services.generations.get(caller.project_id, g.id)
    with pytest.raises(NotFoundError):
        keys.get(place.project, key.id)


def test_a_key_ends_by_revocation_or_expiry(place: Place) -> None:
    keys = place.services.keys
    key, token = keys.create(place.project, KeyForm(expires_at=place.now() + timedelta(hours=1)))
    assert keys.authenticate(token).key_id == key.id
    assert keys.get(place.project, key.id).last_used_at is not None
    place.ahead(3601)
    with pytest.raises(UnauthorizedError, match="expired"):
        keys.authenticate(token)
    lasting, token = keys.create(place.project, KeyForm())
    revoked = keys.revoke(place.project, lasting.id)
    assert keys.revoke(place.project, lasting.id) == revoked, "again is no error"
    with pytest.raises(UnauthorizedError, match="revoked"):
        keys.authenticate(token)
    with pytest.raises(UnauthorizedError, match="not known"):
        keys.authenticate("trk_" + "x" * 40)
    with pytest.raises(InvalidError, match="past"):
        keys.create(place.project, KeyForm(expires_at=place.now() - timedelta(seconds=1)))


def test_the_bootstrap_key_is_made_once_however_many_start(place: Place) -> None:
    token = "trk_" + "s" * 40
    with ThreadPoolExecutor(4) as threads:
        for run in [threads.submit(place.services.keys.ensure_bootstrap, token) for _ in range(4)]:
            run.result()
    assert place.services.keys.authenticate(token).scopes == {"read", "write", "admin"}
    assert len(place.services.keys.page(place.project, None, 50)[0]) == 2
    with pytest.raises(InvalidError, match="TRACKER_BOOTSTRAP_API_KEY"):
        place.services.keys.ensure_bootstrap("short")


def test_a_project_is_made_once_with_a_secret_that_signs(place: Place) -> None:
    with ThreadPoolExecutor(4) as threads:
        made = {
            run.result().project_id
            for run in [threads.submit(place.services.keys.project, "new", make=True) for _ in range(4)]
        }
    assert len(made) == 1
    assert place.services.endpoints.project_secret(made.pop()).startswith("whsec_")
    with pytest.raises(NotFoundError):
        place.services.keys.project("nobody")


def test_an_idempotency_key_answers_the_same_and_is_free_after_a_day(place: Place) -> None:
    idempotency = place.services.idempotency
    assert idempotency.begin(place.project, "k", b"one") is None
    running = idempotency.begin(place.project, "k", b"one")
    assert running is not None
    assert running.status is None
    idempotency.finish(place.project, "k", 201, b"answer")
    kept = idempotency.begin(place.project, "k", b"two")
    assert kept is not None
    assert (kept.fingerprint, kept.status, bytes(kept.body or b"")) == (b"one", 201, b"answer")
    place.ahead(25 * 3600)
    place.services.upkeep.sweep()
    assert place.scalar("SELECT count(*) FROM idempotency_keys") == 0
    assert idempotency.begin(place.project, "k", b"two") is None


def test_a_key_is_free_again_after_a_failure_or_a_dead_process(place: Place) -> None:
    idempotency = place.services.idempotency
    idempotency.begin(place.project, "failed", b"x")
    idempotency.abandon(place.project, "failed")
    assert idempotency.begin(place.project, "failed", b"x") is None
    assert idempotency.begin(place.project, "died", b"x") is None
    assert idempotency.begin(place.project, "died", b"x") is not None
    place.ahead(150)
    assert idempotency.begin(place.project, "died", b"x") is None


def test_of_many_who_take_a_key_at_once_one_gets_it(place: Place) -> None:
    def take(_: int) -> Any:
        return place.services.idempotency.begin(place.project, "k", b"x")

    with ThreadPoolExecutor(6) as threads:
        taken = list(threads.map(take, range(6)))
    assert taken.count(None) == 1


def test_the_feed_resumes_behind_a_cursor_or_an_event(place: Place, relay: Relay) -> None:
    feed = place.services.feed
    start = feed.newest(place.project)
    assert feed.page(place.project, start, 10) == []
    for i in range(3):
        place.register(relay.create(age=100, duration=1), metadata={"n": i})
        place.poll()
    whole = feed.page(place.project, None, 10)
    assert [entry.type for entry in whole] == ["generation.completed"] * 3, "a registration is not sent to anybody"
    assert feed.page(place.project, start, 10) == whole
    assert feed.page(place.project, whole[0].cursor, 10) == whole[1:]
    assert feed.page(place.project, ids.public("evt", whole[1].id), 10) == whole[2:]
    assert feed.page(place.project, feed.newest(place.project), 10) == []
    other = place.services.keys.project("other", make=True).project_id
    assert feed.page(other, None, 10) == []
    for nonsense in ("", "x", "%%%", whole[0].cursor[:-3], "evt_" + "0" * 26):
        with pytest.raises(InvalidError, match="after"):
            feed.page(place.project, nonsense, 10)
    with pytest.raises(InvalidError):
        feed.page(other, ids.public("evt", whole[1].id), 10)


def test_readiness_tells_the_age_of_the_last_tick_and_the_lag(place: Place) -> None:
    health = place.services.health
    silent = health.ready()
    assert silent["ready"]
    assert not silent["healthy"], "nothing has ticked yet"
    place.services.upkeep.tick()
    well = health.ready()
    assert well["healthy"]
    assert well["redis"]
    assert well["broker"]
    assert well["tick_age"] < 5
    place.register("t")
    place.services.database.ahead += timedelta(seconds=30)
    late = health.ready()
    assert not late["healthy"]
    assert 29 < late["lag"] < 40
    assert 29 < late["tick_age"] < 40


def test_switches_stop_one_kind_of_work(place: Place, relay: Relay) -> None:
    health = place.services.health
    relay.says("t", "processing")
    g = place.register("t")
    health.stop("polls", "maintenance at the relay")
    assert place.poll() == 0
    assert health.stopped() == {"polls": "maintenance at the relay"}
    assert health.resume("polls")
    assert not health.resume("polls")
    assert place.poll() == 1
    assert place.get(g).state == "processing"


def test_figures_count_what_there_is(place: Place, relay: Relay) -> None:
    place.register("t")
    place.services.endpoints.create(place.project, EndpointForm(url="http://127.0.0.1:9/x"))
    figures = place.services.health.figures()
    assert ({"provider": "luma", "state": "registered"}, 1.0) in figures["tracker_generations"]
    assert figures["tracker_polls_scheduled"] == [({}, 1.0)]
    assert figures["tracker_credentials"] == [({"state": "active"}, 1.0)]


def test_a_webhook_address_that_may_not_be_reached_is_refused(place: Place) -> None:
    for url in (
        "http://10.0.0.1/x",
        "https://169.254.169.254/latest",
        "http://example.com/x",
        "ftp://127.0.0.1/x",
        "https://user:pw@example.com/",
    ):
        with pytest.raises(InvalidError, match="url"):
            place.services.endpoints.create(place.project, EndpointForm(url=url))
        with pytest.raises(InvalidError, match="webhook_url"):
            place.register("t", webhook_url=url)
