"""The stream of events: live, resumed without loss, and as a feed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tracker.api import events, lists, schemas
from tracker.core.generation import State


class Stream:
    """One follower."""

    def __init__(self, api: Any, **headers: str) -> None:
        self.answer = requests.get(
            f"{api.url}/v1/events",
            headers={"Authorization": f"Bearer {api.key}", "Accept": "text/event-stream", **headers},
            stream=True, timeout=20,
        )  # fmt: skip
        self.blocks = self._read()

    def _read(self) -> Iterator[dict[str, str]]:
        block: dict[str, str] = {}
        for line in self.answer.iter_lines(chunk_size=1, decode_unicode=True):
            name, _, value = line.partition(":")
            if line:
                block[name or "comment"] = value.strip()
            elif block:
                yield block
                block = {}

    def block(self) -> dict[str, str]:
        return next(self.blocks)

    def take(self, count: int) -> list[dict[str, str]]:
        """The next events; comments are passed over."""
        found: list[dict[str, str]] = []
        while len(found) < count:
            block = self.block()
            if "data" in block:
                found.append(block)
        return found

    def close(self) -> None:
        self.answer.close()


def _followers(api: Any) -> int:
    return len(api.context.news._waiters)


def test_everything_is_told_as_it_happens(api: Any) -> None:
    made = api.register()["id"]
    stream = Stream(api)
    assert stream.answer.headers["content-type"].startswith("text/event-stream")
    assert stream.block() == {"retry": "1000"}
    api.until(lambda: _followers(api) == 1, 5, "the stream waits")
    api.move(made, State.PROCESSING)
    api.move(made, State.COMPLETED)
    first, second = stream.take(2)
    assert [first["event"], second["event"]] == ["generation.processing", "generation.completed"]
    told = json.loads(second["data"])
    schemas.EventShown.model_validate(told)
    assert told["id"].startswith("evt_")
    assert (told["data"]["id"], told["data"]["sequence"], told["data"]["previous_state"]) == (made, 3, "processing")
    stream.close()
    api.until(lambda: _followers(api) == 0, 5, "nobody follows")


def test_a_broken_stream_goes_on_without_loss(api: Any) -> None:
    ids = [api.register(f"t{n}")["id"] for n in range(5)]
    stream = Stream(api)
    stream.block()
    api.until(lambda: _followers(api) == 1, 5, "the stream waits")
    for id_ in ids[:2]:
        api.move(id_, State.QUEUED)
    last = stream.take(2)[-1]
    stream.close()
    for id_ in ids[2:]:
        api.move(id_, State.QUEUED)
    for place in (last["id"], json.loads(last["data"])["id"]):
        again = Stream(api, **{"Last-Event-ID": place})
        assert [json.loads(e["data"])["data"]["id"] for e in again.take(3)] == ids[2:]
        again.close()


def test_long_streams_are_read_in_slices(api: Any) -> None:
    ids = [api.register(f"t{n}")["id"] for n in range(130)]
    for id_ in ids:
        api.call("POST", f"/v1/generations/{id_}/cancel")
    stream = Stream(api, **{"Last-Event-ID": events.BEGINNING})
    assert [json.loads(e["data"])["data"]["id"] for e in stream.take(130)] == ids
    stream.close()


def test_silence_is_filled_with_comments(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.2)
    stream = Stream(api)
    stream.block()
    assert [stream.block(), stream.block()] == [{"comment": "nothing new"}] * 2
    stream.close()


def test_a_stream_ends_in_the_end(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.1)
    monkeypatch.setattr(events, "LONGEST", 0.3)
    stream = Stream(api)
    comments = [block for block in stream.blocks if "comment" in block]
    assert 1 <= len(comments) <= 5


def test_a_stop_ends_the_streams(api: Any) -> None:
    stream = Stream(api)
    stream.block()
    api.until(lambda: _followers(api) == 1, 5, "the stream waits")
    api.context.close()
    with pytest.raises(StopIteration):
        stream.block()


def test_followers_are_bounded(api: Any) -> None:
    api.context.news._most = 0
    answer = api.get("/v1/events", headers={"Accept": "text/event-stream"})
    api.problem(answer, 503, "busy")
    assert answer.headers["retry-after"] == "5"


def test_many_followers_are_served_by_few_reads(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = api.register()["id"]
    streams = [Stream(api) for _ in range(20)]
    for stream in streams:
        stream.block()
    api.until(lambda: _followers(api) == 20, 5, "all wait")
    reads = []
    page = api.services.feed.page
    monkeypatch.setattr(api.services.feed, "page", lambda *given: reads.append(given) or page(*given))
    api.move(made, State.QUEUED)
    assert len({stream.take(1)[0]["id"] for stream in streams}) == 1
    api.until(lambda: _followers(api) == 20, 5, "all wait again")
    assert len(reads) <= 10
    for stream in streams:
        stream.close()


def test_the_same_as_a_feed(api: Any) -> None:
    made = api.register()["id"]
    empty = api.shows(api.get("/v1/events"), lists.EventPage)
    assert empty["data"] == []
    for state in (State.QUEUED, State.PROCESSING, State.COMPLETED):
        api.move(made, state)
    first = api.shows(api.get("/v1/events", params={"after": empty["next_cursor"], "limit": 2}), lists.EventPage)
    rest = api.shows(api.get("/v1/events", params={"after": first["next_cursor"]}), lists.EventPage)
    types = [event["type"] for event in first["data"] + rest["data"]]
    assert types == ["generation.queued", "generation.processing", "generation.completed"]
    end = api.get("/v1/events", params={"after": rest["next_cursor"]}).json()
    assert end == {"data": [], "next_cursor": rest["next_cursor"]}
    by_id = api.get("/v1/events", params={"after": first["data"][0]["id"]}).json()
    assert [event["type"] for event in by_id["data"]] == types[1:]


def test_a_place_that_is_none_is_refused(api: Any) -> None:
    for wrong in ("x", "evt_" + "0" * 26, "é", "A" * 33):
        api.problem(api.get("/v1/events", params={"after": wrong}), 422, "invalid", "after")
        header = {"Accept": "text/event-stream", "Last-Event-ID": wrong.encode("latin-1")}
        api.problem(api.get("/v1/events", headers=header), 422, "invalid", "Last-Event-ID")


def test_another_projects_events_are_not_told(api: Any) -> None:
    other = api.with_key("read", "write", project="other")
    other.move(other.register("theirs")["id"], State.QUEUED)
    assert api.get("/v1/events").json()["data"] == []
    theirs = other.get("/v1/events").json()["data"]
    assert len(theirs) == 1
    api.problem(api.get("/v1/events", params={"after": theirs[0]["id"]}), 422, "invalid", "after")
