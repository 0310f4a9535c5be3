"""Downloads through the database: what is remembered, resumed, asked anew, given up and told."""

from __future__ import annotations

import fcntl
import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from tests.couriers.files import FILM, SHA, Files
from tests.net import hostile
from tests.services.copying import Ground, Many, answering, ground, status, video
from tracker import wiring
from tracker.core.generation import Output
from tracker.providers import REGISTRY
from tracker.providers.luma import Luma
from tracker.store import artifacts, db


@pytest.fixture
def copies(services: wiring.Services) -> Ground:
    return ground(services)


def stamped(lives: timedelta, begins: datetime) -> str:
    return f"?X-Amz-Date={begins:%Y%m%dT%H%M%SZ}&X-Amz-Expires={int(lives.total_seconds())}&X-Amz-Signature=s3cr3t"


def now_of(copies: Ground) -> datetime:
    with copies.services.database.transaction() as tx:
        return db.now(tx).astimezone(UTC)


def events(copies: Ground) -> list[str]:
    with copies.services.database.transaction() as tx:
        rows = tx.execute(text("SELECT type FROM events WHERE type LIKE 'artifact%' ORDER BY xid, sequence"))
        return [row.type for row in rows]


def test_a_copy_is_stored_with_a_note_beside_it_that_holds_no_signature(copies):
    with hostile.serving(Files()) as server:
        g = copies.completed(Output("video", 0, f"{server.url}film.mp4?signature=s3cr3t"))
        assert copies.worker().fetch_due() == 1
    row = copies.row(g)
    assert (row.state, row.sha256, row.size, row.bytes_done) == ("stored", SHA, len(FILM), len(FILM))
    assert b"".join(copies.store.read(row.object_key)) == FILM
    assert row.object_key.startswith("default/luma/")
    assert row.object_key.endswith("/video-0.mp4")
    note = b"".join(copies.store.read(row.object_key + ".json"))
    assert (json.loads(note)["sha256"], json.loads(note)["source_host"]) == (SHA, "localhost")
    assert b"s3cr3t" not in note
    assert copies.partials() == []
    assert events(copies) == ["artifact.stored", "artifacts.done"]


def test_cut_again_and_again_it_is_fetched_once_and_progress_resets_the_count(copies):
    files = Files(cut=25_000)
    with hostile.serving(files) as server:
        g = copies.completed(video(server))
        worker = copies.worker()
        worker.fetch_due()
        row = copies.row(g)
        assert (row.attempts, row.etag, row.size, row.bytes_done) == (0, '"v1"', len(FILM), 25_000)
        assert row.error["code"] == "truncated"
        assert copies.partials() == [row.partial]
        assert copies.until_settled(worker, g, 30).sha256 == SHA
    assert files.served == len(FILM), "thirteen tries, and no byte twice"


def test_without_progress_it_ends_and_says_why(copies):
    with hostile.serving(Files(etag=None, cut=1000)) as server:
        g = copies.completed(video(server))
        row = copies.until_settled(copies.worker(), g)
        assert len(server.requests) == 12
    assert (row.state, row.error["code"]) == ("failed", "truncated")
    assert events(copies) == ["artifact.failed", "artifacts.done"]
    assert copies.partials() == []


def test_a_partial_file_that_another_process_writes_is_left_to_it(copies):
    files = Files(cut=100_000)
    with hostile.serving(files) as server:
        g = copies.completed(video(server))
        worker = copies.worker()
        worker.fetch_due()
        files.cut = None
        copies.due_now()
        with (copies.store.spool.folder / copies.row(g).partial).open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            worker.fetch_due()
            assert copies.row(g).sha256 == SHA
            assert len(copies.partials()) == 1
            assert copies.store.spool.sweep(lambda _: (), young=-60) == [], "it is still written"
    assert copies.store.spool.sweep(lambda _: (), young=-60) != []
    assert copies.partials() == []


def test_a_partial_file_of_another_machine_is_begun_anew(copies):
    files = Files(cut=100_000)
    with hostile.serving(files) as server:
        g = copies.completed(video(server))
        worker = copies.worker()
        worker.fetch_due()
        (copies.store.spool.folder / copies.row(g).partial).unlink()
        files.cut = None
        copies.due_now()
        worker.fetch_due()
    assert copies.row(g).sha256 == SHA


def test_a_lapsed_claim_is_taken_over_and_the_loser_stores_nothing(copies):
    with hostile.serving(Files()) as server:
        g = copies.completed(video(server))
        with copies.services.database.transaction() as tx:
            (lost,) = artifacts.claim(tx, now=db.now(tx), limit=1)
        assert copies.worker().fetch_due() == 0, "it is claimed"
        copies.due_now()
        copies.worker().fetch_due()
        with copies.services.database.transaction() as tx:
            assert not artifacts.renew(tx, lost, now=db.now(tx), bytes_done=1, bytes_per_second=1)
            assert not artifacts.begun(tx, lost, partial="x", etag="y", size=1)
    assert copies.row(g).state == "stored"


def test_an_ended_link_is_asked_for_anew_and_the_partial_file_kept(services):
    files, relay = Files(cut=100_000), Many()
    with hostile.serving(files) as new, hostile.serving(relay) as asked:
        copies = ground(services, asked.url.rstrip("/"))
        old = Many({"/film.mp4": Files(cut=100_000)})
        relay.paths["/luma/generations/task-1"] = answering(
            {
                "id": "task-1",
                "state": "completed",
                "video": {"url": f"{new.url}fresh.mp4", "download_url": f"{new.url}fresh.mp4"},
            }
        )
        with hostile.serving(old) as server:
            g = copies.completed(video(server))
            copies.worker().fetch_due()
            old.paths["/film.mp4"] = status(403, b"<Error/>")
            files.cut = None
            copies.due_now()
            copies.worker().fetch_due()
    row = copies.row(g)
    assert (row.state, row.sha256, row.refreshed) == ("stored", SHA, 1)
    assert files.served == len(FILM) - 100_000, "the same ETag and size: only the rest was fetched"
    assert relay.asked == ["/luma/generations/task-1"]


def test_a_link_known_to_have_ended_is_not_even_tried(services):
    relay = Many()
    with hostile.serving(Files()) as new, hostile.serving(relay) as asked, hostile.serving(status(403)) as old:
        copies = ground(services, asked.url.rstrip("/"))
        relay.paths["/luma/generations/task-1"] = answering(
            {"id": "task-1", "state": "completed", "video": {"url": f"{new.url}fresh.mp4"}}
        )
        ended = stamped(timedelta(hours=1), now_of(copies) - timedelta(hours=2))
        g = copies.completed(video(old, f"film.mp4{ended}"))
        copies.worker().fetch_due()
        assert old.requests == []
    assert copies.row(g).state == "stored"


def test_one_worker_asks_for_all_links_of_a_generation(services):
    relay = Many()
    kinds = ("video", "thumbnail", "last_frame")
    with hostile.serving(Files()) as new, hostile.serving(relay) as asked, hostile.serving(status(410)) as old:
        copies = ground(services, asked.url.rstrip("/"))
        found = {kind: {"url": f"{new.url}{kind}"} for kind in kinds}
        relay.paths["/luma/generations/task-1"] = answering({"id": "task-1", "state": "completed", **found})
        g = copies.completed(*(video(old, kind, kind=kind) for kind in kinds))
        copies.until_settled(copies.worker(), g)
        copies.due_now()
        copies.worker().fetch_due()
    assert [copies.row(g, kind).state for kind in kinds] == ["stored"] * 3
    assert relay.asked == ["/luma/generations/task-1"]
    assert events(copies).count("artifacts.done") == 1


def test_links_near_their_end_come_first(copies):
    many = Many({f"/{name}": Files() for name in ("soon", "later", "never")})
    with hostile.serving(many) as server:
        now = now_of(copies)
        places = ("never", f"later{stamped(timedelta(hours=9), now)}", f"soon{stamped(timedelta(minutes=9), now)}")
        for place in places:
            copies.completed(video(server, place), task=place[:5])
        copies.worker(at_once=1).fetch_due()
    assert [place.partition("?")[0] for place in many.asked] == ["/soon", "/later", "/never"]


def test_the_link_without_watermark_is_asked_for_where_the_answer_has_none(services):
    relay, many = Many(), Many({"/plain.mp4": Files(), "/clean.mp4": Files()})
    with hostile.serving(relay) as asked, hostile.serving(many) as server:
        copies = ground(services, asked.url.rstrip("/"))
        relay.paths["/luma/generations/a/download_video_url"] = answering({"url": f"{server.url}clean.mp4"})
        lacking = {"id": "a", "state": "completed", "video": {"url": f"{server.url}plain.mp4", "download_url": ""}}
        copies.completed(video(server, "plain.mp4"), task="a", answer=lacking)
        copies.completed(video(server, "plain.mp4"), task="b", answer={**lacking, "id": "b"})
        copies.worker(at_once=1).fetch_due()
    assert sorted(many.asked) == ["/clean.mp4", "/plain.mp4"], (
        "a relay without the page: the plain one is better than none"
    )
    assert [g.artifacts[0].state for g in copies.services.generations.page(copies.project_id, _all(), 9)[0]] == [
        "stored"
    ] * 2


def _all():
    from tracker.store.generations import Filters

    return Filters()


class Keyed(Luma):
    def download_headers(self, account, _url):
        return (("Authorization", f"Bearer {account.api_key}"),)


def test_the_key_goes_to_the_credentials_own_host_alone(services, monkeypatch):
    monkeypatch.setitem(REGISTRY, "luma", Keyed())
    with hostile.serving(Files()) as own, hostile.serving(Files()) as stranger:
        copies = ground(services, own.url.rstrip("/"))
        copies.completed(video(own, "mine"), task="a")
        copies.completed(video(stranger, "theirs"), task="b")
        copies.worker().fetch_due()
        assert b"Bearer sk-secret" in own.requests[0]
        assert b"sk-secret" not in stranger.requests[0]


@pytest.mark.parametrize("page", [b"<!doctype html><p>Just a moment", b'<?xml version="1.0"?><Error/>', b""])
def test_an_error_page_is_refused_and_the_file_still_comes(copies, page):
    pages = [status(200, page, "video/mp4")] * 3
    files = Files()

    def first_pages(wire, request: bytes) -> None:
        (pages.pop() if pages else files)(wire, request)

    with hostile.serving(first_pages) as server:
        g = copies.completed(video(server))
        worker = copies.worker()
        worker.fetch_due()
        assert copies.row(g).error["code"] == "wrong_media"
        assert copies.until_settled(worker, g).sha256 == SHA


def test_bytes_that_break_the_servers_promise_are_never_stored(copies):
    with hostile.serving(Files(extra={"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="})) as server:
        g = copies.completed(video(server))
        row = copies.until_settled(copies.worker(), g)
    assert (row.state, row.error["code"]) == ("failed", "corrupt")
    assert list(copies.store.list()) == []


def test_a_redirect_inside_is_refused_and_said(copies):
    inside = b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/film\r\nContent-Length: 0\r\n\r\n"
    with hostile.serving(hostile.says(inside)) as server:
        g = copies.completed(video(server))
        row = copies.until_settled(copies.worker(), g)
    assert (row.state, row.error["code"]) == ("failed", "address")


def test_what_was_fetched_stays_while_the_store_is_away(copies):
    files = Files()
    with hostile.serving(files) as server:
        g = copies.completed(video(server))
        blocked = copies.services.settings.home / "artifacts" / "default"
        blocked.parent.mkdir(parents=True, exist_ok=True)
        blocked.write_text("a file where a folder should be")
        worker = copies.worker()
        worker.fetch_due()
        assert copies.row(g).error["code"] == "storage"
        blocked.unlink()
        assert copies.until_settled(worker, g).sha256 == SHA
    assert files.served == len(FILM)


def test_no_connection_to_the_database_is_held_while_bytes_flow(copies):
    held: list[int] = []

    def slowly(wire, request: bytes) -> None:
        held.append(copies.services.database.in_use)
        Files()(wire, request)

    with hostile.serving(slowly) as server:
        copies.completed(video(server))
        copies.worker().fetch_due()
    assert held == [0]


def test_a_generation_that_is_deleted_meanwhile_leaves_nothing(copies):
    def deleting(wire, request: bytes) -> None:
        copies.services.generations.delete(copies.project_id, g.id)
        Files()(wire, request)

    with hostile.serving(deleting) as server:
        g = copies.completed(video(server))
        copies.worker().fetch_due()
    assert list(copies.store.list()) == []


def test_many_at_once_in_one_process(copies):
    with hostile.serving(Files()) as server:
        made = [copies.completed(video(server), task=f"t{n}") for n in range(20)]
        assert copies.worker(at_once=8).fetch_due() == 20
        assert server.peak > 1
    assert {copies.row(g).sha256 for g in made} == {SHA}
    assert copies.partials() == []
