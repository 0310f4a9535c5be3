"""Each provider but Luma from registration to its end, over real sockets: its path, its words, its files, and what its answers must not do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr

from tracker.core.generation import Generation
from tracker.services.credentials import PROBE_TASK
from tracker.services.forms import CredentialForm, GenerationChange

from .conftest import Place, Relay

TASK = "749823001234567890"
FILM = "https://files.example/film.mp4"
SONG = "https://files.example/song.mp3"


def _kling(status: str, **more: Any) -> dict[str, Any]:
    return {"code": 0, "data": {"task_id": TASK, "task_status": status, **more}}


def _suno(status: str, clips: list[dict[str, Any]]) -> dict[str, Any]:
    return {"code": "success", "data": {"task_id": TASK, "status": status, "progress": "50%", "data": clips}}


KLING = (
    _kling("submitted"),
    _kling("processing"),
    _kling("succeed", task_result={"videos": [{"id": "1", "url": FILM, "duration": "5"}]}),
)
RUNWAY = (
    {"id": TASK, "status": "THROTTLED"},
    {"id": TASK, "status": "RUNNING", "progress": 0.3},
    {"id": TASK, "status": "SUCCEEDED", "output": [FILM]},
)
SUNO = (
    _suno("QUEUED", []),
    _suno("IN_PROGRESS", [{"id": "1", "status": "streaming", "audio_url": SONG}]),
    _suno("SUCCESS", [{"id": "1", "status": "complete", "audio_url": SONG, "metadata": {"duration": 60}}]),
)
LIVES = {
    ("kling", "image2video", f"/kling/v1/videos/image2video/{TASK}"): KLING,
    ("kling-official", "text2video", f"/v1/videos/text2video/{TASK}"): KLING,
    ("runway", None, f"/runwayml/v1/tasks/{TASK}"): RUNWAY,
    ("runway-official", None, f"/v1/tasks/{TASK}"): RUNWAY,
    ("suno", None, f"/suno/fetch/{TASK}"): SUNO,
}


def _account(place: Place, provider: str) -> None:
    form = CredentialForm(providers=[provider], base_url=place.relay.url, api_key=SecretStr("access:secret"))
    place.services.credentials.put(place.project, "default", form)


def _says(relay: Relay, path: str, body: Any, status: int = 200) -> None:
    relay.call("answers", {"path": path, "body": json.dumps(body), "status": status})


@pytest.mark.parametrize(("subject", "life"), LIVES.items(), ids=[provider for provider, _, _ in LIVES])
def test_a_life_from_queued_to_its_file(
    place: Place, relay: Relay, subject: tuple[str, str | None, str], life: tuple[dict[str, Any], ...]
) -> None:
    provider, kind, path = subject
    _account(place, provider)
    _says(relay, path, life[0])
    g = place.register(TASK, provider=provider, kind=kind)
    place.poll()
    assert place.get(g).state == "queued"
    _says(relay, path, life[1])
    place.run(60, lambda: place.get(g).state == "processing")
    _says(relay, path, life[2])
    place.run(180, lambda: place.get(g).state == "completed")
    assert place.types(g) == ["registered", "queued", "processing", "completed"]
    assert [(o.kind, o.url) for o in place.get(g).outputs] == [
        ("audio", SONG) if provider == "suno" else ("video", FILM)
    ]


def test_klings_empty_purse_wears_429_and_pauses_the_account(place: Place, relay: Relay) -> None:
    _account(place, "kling")
    _says(relay, f"/kling/v1/videos/text2video/{TASK}", {"code": 1102, "message": "resource pack depleted"}, 429)
    g = place.register(TASK, provider="kling")
    place.poll()
    account = place.services.credentials.get(place.project, "default")
    assert (account.health.paused, place.get(g).state) == (True, "registered")


def test_a_wrong_family_is_named_and_mended_without_losing_the_task(place: Place, relay: Relay) -> None:
    _account(place, "kling")
    _says(relay, f"/kling/v1/videos/text2video/{TASK}", {"code": 1203, "message": "resource not found"}, 404)
    _says(relay, f"/kling/v1/videos/lip-sync/{TASK}", KLING[2])
    g = place.register(TASK, provider="kling")
    place.poll()
    problem = place.get(g).last_problem
    assert problem is not None
    assert "no kind was given, so it was asked for as 'text2video'" in problem.message
    place.run(3600)
    assert place.get(g).state == "registered", "a guess ends nothing, however often it misses"
    place.services.generations.edit(place.project, g.id, GenerationChange(kind="lip-sync"))
    place.run(600, lambda: place.get(g).state == "completed")
    assert place.get(g).state == "completed"


def _hailuo(place: Place, relay: Relay, **file: Any) -> Generation:
    _account(place, "minimax")
    done = {"task_id": TASK, "status": "Success", "file_id": "77", "video_width": 1366, "video_height": 768}
    _says(relay, "/v1/query/video_generation", done)
    _says(relay, "/v1/files/retrieve", {"file": {"file_id": 77, **file}, "base_resp": {"status_code": 0}})
    return place.register(TASK, provider="minimax")


def test_a_file_that_an_answer_only_names_is_asked_for_at_once(place: Place, relay: Relay) -> None:
    g = _hailuo(place, relay, download_url=FILM)
    before = relay.call("stats")["requests"]
    place.poll()
    (film,) = place.get(g).outputs
    assert (place.get(g).state, film.url, film.width, film.height) == ("completed", FILM, 1366, 768)
    assert relay.call("stats")["requests"] - before == 2
    kept = place.services.generations.answer(place.project, g.id)
    assert json.loads(kept or b"")["file_id"] == "77", "the answer about the task, not that about its file"


def test_a_file_that_cannot_be_had_yet_is_a_problem_and_no_end(place: Place, relay: Relay) -> None:
    g = _hailuo(place, relay)
    place.poll()
    problem = place.get(g).last_problem
    assert problem is not None
    assert (problem.code, place.get(g).state) == ("no_output", "registered")
    _says(relay, "/v1/files/retrieve", {"error": "not yet"}, 404)
    place.run(30)
    assert place.get(g).state == "registered"
    _says(relay, "/v1/files/retrieve", {"file": {"download_url": FILM}})
    place.run(120, lambda: place.get(g).state == "completed")
    assert place.get(g).state == "completed"


def test_the_second_question_is_paid_for_even_by_a_purse_that_held_one(place: Place, relay: Relay) -> None:
    g = _hailuo(place, relay, download_url=FILM)
    mine = "'minimax' = ANY (providers)"
    place.change(f"UPDATE credentials SET requests_per_second = 0.1, tokens = 1, refilled_at = now() WHERE {mine}")
    place.poll()
    assert place.get(g).state == "completed"
    assert -1.1 < place.scalar(f"SELECT tokens FROM credentials WHERE {mine}") < -0.5, (
        "the next ones wait until it is earned"
    )


NOT_THERE = {"code": "task_not_exist", "message": "task_not_exist", "data": None}


@pytest.mark.parametrize(
    ("provider", "told"),
    [
        ("kling", (f"/kling/v1/videos/text2video/{PROBE_TASK}", NOT_THERE, 400)),
        (
            "minimax",
            ("/v1/query/video_generation", {"task_id": "", "status": "", "base_resp": {"status_code": 2013}}, 200),
        ),
        ("suno", (f"/suno/fetch/{PROBE_TASK}", NOT_THERE, 400)),
    ],
)
def test_a_good_key_is_found_good(place: Place, relay: Relay, provider: str, told: tuple[str, Any, int]) -> None:
    _account(place, provider)
    _says(relay, *told)
    assert place.services.credentials.test(place.project, "default")["ok"]


def test_songs_are_asked_about_together(place: Place, relay: Relay) -> None:
    _account(place, "suno")
    records = [SUNO[2]["data"] | {"task_id": task} for task in ("one", "two")]
    _says(relay, "/suno/fetch", {"code": "success", "data": records})
    held = [place.register(task, provider="suno") for task in ("one", "two", "three")]
    _says(relay, "/suno/fetch/three", _suno("QUEUED", []) | {"data": {"task_id": "three", "status": "QUEUED"}})
    before = relay.call("stats")["requests"]
    place.run(1)
    assert [place.get(g).state for g in held] == ["completed", "completed", "queued"]
    assert relay.call("stats")["requests"] - before == 2, "one for all, and one for whom the answer left out"
    kept = place.services.dropin.of_project(place.project, "suno", "one").body
    assert json.loads(kept or b"") == {"code": "success", "message": "", "data": records[0]}, (
        "as the single query shows it"
    )


def test_an_answer_nested_too_deeply_to_keep_costs_nobody_else(place: Place, relay: Relay) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    _says(
        relay, "/luma/tasks", [{"id": "deep", "state": "processing", "x": deep}, {"id": "plain", "state": "processing"}]
    )
    held = [place.register(task) for task in ("deep", "plain")]
    place.run(1)
    assert [place.get(g).state for g in held] == ["processing", "processing"]
