"""Room for copies: full disks, quotas, rules of projects, and what nobody needs any more."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.couriers.files import FILM, SHA, Files
from tests.net import hostile
from tests.services.copying import Ground, Many, ground, video
from tracker import wiring
from tracker.couriers.download import Limits
from tracker.couriers.store import store_at
from tracker.services.forms import RegistrationForm
from tracker.services.keeping import Keeping
from tracker.services.storing import remover
from tracker.store.keeping import Rules

MB = 1024 * 1024
BIG = FILM[:64] + bytes(8 * MB - 64)


@pytest.fixture
def copies(services: wiring.Services) -> Ground:
    return ground(services)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a small disk needs root with CAP_SYS_ADMIN")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def stop_reason(copies: Ground) -> str | None:
    return copies.services.health.stopped().get("downloads")


@pytest.mark.parametrize("known", [True, False], ids=["before", "during"])
def test_a_full_disk_stops_downloads_visibly_and_they_go_on_by_themselves(copies, small_disk, known):
    """Known: the server says how much will come. Otherwise the disk fills while bytes flow."""
    copies.store = store_at(f"file://{small_disk}", small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(14 * MB))
    files = Files(content=BIG)
    chunked = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nConnection: close\r\n\r\n' + BIG
    served = files if known else hostile.then_closes(chunked)
    with hostile.serving(served) as server:
        made = [copies.completed(video(server), task=f"t{n}") for n in range(2)]
        worker = copies.worker(limits=Limits(reserve=2 * MB), at_once=1)
        worker.fetch_due()
        states = {copies.row(g).state for g in made}
        assert states == {"stored", "pending"}, "one fits, the other does not"
        reason = stop_reason(copies)
        assert reason is not None
        assert "the disk is full" in reason
        assert copies.services.health.ready()["stopped"]["downloads"] == reason
        waiting = next(g for g in made if copies.row(g).state == "pending")
        assert (copies.row(waiting).error["code"], copies.row(waiting).attempts) == ("disk_full", 0)
        before = len(server.requests)
        for _ in range(5):
            copies.due_now()
            assert worker.fetch_due() == 0
        assert len(server.requests) == before, "no storm of tries"
        filler.unlink()
        copies.due_now()
        assert worker.fetch_due() == 1
        assert copies.row(waiting).state == "stored"
    assert stop_reason(copies) is None
    assert copies.partials() == []


def test_a_file_that_does_not_fit_waits_alone_while_others_are_fetched(copies, small_disk):
    copies.store = store_at(f"file://{small_disk}", small_disk)
    many = Many({"/big": Files(content=FILM[:64] + bytes(30 * MB)), "/small": Files()})
    with hostile.serving(many) as server:
        big, small = (
            copies.completed(video(server, "big"), task="a"),
            copies.completed(video(server, "small"), task="b"),
        )
        copies.worker(limits=Limits(reserve=MB), at_once=1).fetch_due()
    assert (copies.row(big).error["code"], copies.row(small).state, stop_reason(copies)) == (
        "disk_full",
        "stored",
        None,
    )


def test_what_an_operator_stopped_only_an_operator_lets_go_on(copies):
    copies.services.health.stop("downloads", "maintenance")
    with hostile.serving(Files()) as server:
        copies.completed(video(server))
        assert copies.worker().fetch_due() == 0
        copies.services.health.resume("downloads")
        assert copies.worker().fetch_due() == 1


def test_a_quota_is_shared_by_those_who_fetch_at_once_and_said(copies):
    copies.services.keeping.put_rules(copies.project_id, Rules(quota_bytes=2 * len(FILM) + 10))
    with hostile.serving(Files()) as server:
        made = [copies.completed(video(server), task=f"t{n}") for n in range(4)]
        copies.worker().fetch_due()
        assert sorted(copies.row(g).state for g in made) == ["pending", "pending", "stored", "stored"]
        waiting = [g for g in made if copies.row(g).state == "pending"]
        assert {copies.row(g).error["code"] for g in waiting} == {"quota"}
        copies.services.keeping.put_rules(copies.project_id, Rules())
        assert copies.until_settled(copies.worker(), waiting[0]).state == "stored"


def test_a_file_over_the_cap_is_refused_at_once(copies):
    with hostile.serving(Files()) as server:
        g = copies.completed(video(server))
        copies.worker(limits=Limits(most_bytes=1000, reserve=0)).fetch_due()
        assert (copies.row(g).state, copies.row(g).error["code"]) == ("failed", "too_large")
        assert len(server.requests) == 1


def test_rules_of_a_project_by_age_and_by_size(copies):
    with hostile.serving(Files()) as server:
        made = [copies.completed(video(server), task=f"t{n}") for n in range(4)]
        copies.worker(at_once=1).fetch_due()
        with copies.services.database.transaction() as tx:
            for age, g in enumerate(made):
                tx.execute(
                    text(
                        "UPDATE artifacts SET stored_at = now() - make_interval(days => :age) WHERE generation_id = :id"
                    ),
                    {"age": 10 * age, "id": g.id},
                )
        assert copies.keeping().sweep()["outlived"] == 0, "no rules, nothing goes"
        copies.services.keeping.put_rules(copies.project_id, Rules(keep_for=timedelta(days=25)))
        assert copies.keeping().sweep()["outlived"] == 1
        copies.services.keeping.put_rules(copies.project_id, Rules(keep_bytes=2 * len(FILM)))
        assert copies.keeping().sweep()["outlived"] == 1
        assert [copies.row(g).state for g in made] == ["stored", "stored", "failed", "failed"]
        assert copies.row(made[3]).error["code"] == "removed"
        assert len(list(copies.store.list())) == 4, "two copies, each with its note"
        copies.services.generations.download(copies.project_id, made[3].id, None)
        assert copies.until_settled(copies.worker(), made[3]).sha256 == SHA, "wished again it is fetched anew"


def test_a_sweep_that_is_told_to_end_leaves_the_rest_to_the_next(copies, monkeypatch):
    monkeypatch.setattr("tracker.services.keeping.AT_ONCE", 1)
    with hostile.serving(Files()) as server:
        for n in range(3):
            copies.completed(video(server), task=f"t{n}")
        copies.worker().fetch_due()
    copies.services.keeping.put_rules(copies.project_id, Rules(keep_bytes=0))

    def remove(keys: Iterable[str]) -> None:
        remover(copies.store)(keys)
        ended.stop()

    ended = Keeping(copies.services.database, copies.store, remove)
    assert ended.sweep()["outlived"] == 1
    assert len(list(copies.store.list())) == 4, "what is gone in the books is gone in the store"
    assert copies.keeping().sweep()["outlived"] == 2


def test_a_project_keeps_by_default_what_its_rules_say(copies):
    register = copies.services.registration.register
    copies.services.keeping.put_rules(copies.project_id, Rules(download=("video",)))
    by_default = register(copies.project_id, RegistrationForm(provider="luma", task_id="a")).generation
    by_wish = register(copies.project_id, RegistrationForm(provider="luma", task_id="b", download=["audio"])).generation
    assert (by_default.download, by_wish.download) == (("video",), ("audio",))
    again = register(copies.project_id, RegistrationForm(provider="luma", task_id="a"))
    assert not again.created, "what was not sent contradicts nothing"


def test_the_sweep_spares_what_is_awaited_written_or_young(copies):
    files = Files(cut=100_000)
    with hostile.serving(files) as server:
        g = copies.completed(video(server))
        copies.worker().fetch_due()
        awaited = copies.row(g).partial
        old, young = ".gen_x-video-0.1.part", ".gen_y-video-0.1.part"
        for name in (old, young):
            copies.store.spool.path(name).write_bytes(b"half")
        for name in (old, awaited):
            os.utime(copies.store.spool.path(name), (1, 1))
        assert copies.keeping().sweep()["partial files"] == 1
        assert copies.partials() == sorted([awaited, young])


def test_copies_named_by_their_content_are_stored_once_and_go_with_the_last(copies):
    with hostile.serving(Files()) as server:
        made = [copies.completed(video(server), task=f"t{n}") for n in range(2)]
        copies.worker(by_content=True, at_once=1).fetch_due()
    (key,) = {copies.row(g).object_key for g in made}
    assert key == f"default/sha256/{SHA[:2]}/{SHA}.mp4"
    place = Path(copies.services.settings.artifacts.removeprefix("file://")) / key
    keeping = copies.keeping(by_content=True)
    copies.services.generations.delete(copies.project_id, made[0].id)
    os.utime(place, (1, 1))
    assert keeping.sweep()["unshared objects"] == 0
    assert place.exists()
    copies.services.generations.delete(copies.project_id, made[1].id)
    assert place.exists(), "a copy that is just being stored may be about to refer to it"
    assert keeping.sweep()["unshared objects"] == 1
    assert list(copies.store.list()) == []


def test_verifying_finds_what_changed_shrank_or_went(copies):
    with hostile.serving(Files()) as server:
        made = [copies.completed(video(server), task=f"t{n}") for n in range(4)]
        copies.worker().fetch_due()
    root = Path(copies.services.settings.artifacts.removeprefix("file://"))
    whole, changed, short, gone = (root / copies.row(g).object_key for g in made)
    changed.write_bytes(hashlib.sha256().digest() + FILM[32:])
    short.write_bytes(FILM[:-1])
    gone.unlink()
    verified = {v.artifact.generation_id: v.wrong for v in copies.services.artifacts.verify(copies.project_id)}
    said = [verified[g.id] or "" for g in made]
    assert said[0] == ""
    assert [word in sentence for word, sentence in zip(("SHA-256", "bytes", "gone"), said[1:], strict=True)] == [
        True
    ] * 3
    assert whole.read_bytes() == FILM
    assert copies.services.artifacts.count(copies.project_id) == 4


def test_project_names_become_safe_folders(services):
    made = ground(services)
    with services.database.transaction() as tx:
        tx.execute(text("UPDATE projects SET name = '../../etc/ Ünsafe'"))
    with hostile.serving(Files()) as server:
        g = made.completed(video(server))
        made.worker().fetch_due()
    key = made.row(g).object_key
    assert (made.row(g).state, ".." in key.split("/"), key.count("/")) == ("stored", False, 5)
