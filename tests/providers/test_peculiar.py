"""Where single providers differ from all the others: how the key is shown, where the files are, ids that hold slashes."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

import orjson
import pytest

from tracker.core.generation import ErrorCode, State
from tracker.core.observation import Observation, Seen
from tracker.providers import get
from tracker.providers.base import Account, KeyedFiles, Response, Subject

ACCOUNT = Account("https://host.example", "key-0123456789")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("provider", "shown"),
    [
        ("vidu", {"Authorization": "Token key-0123456789"}),
        ("veo", {"x-goog-api-key": "key-0123456789"}),
        ("midjourney", {"Authorization": "Bearer key-0123456789", "mj-api-secret": "key-0123456789"}),
        ("runway", {"Authorization": "Bearer key-0123456789", "X-Runway-Version": "2024-11-06"}),
        ("ark", {"Authorization": "Bearer key-0123456789"}),
    ],
)
def test_the_key_is_shown_as_the_provider_wants_it(provider: str, shown: dict[str, str]) -> None:
    asked = get(provider).question(ACCOUNT, Subject("1"))
    assert dict(asked.headers).items() - shown.items() == {
        ("Accept", "application/json"),
        ("Content-Type", "application/json"),
    }
    assert shown.items() <= dict(asked.headers).items()
    without = get(provider).question(Account("https://host.example"), Subject("1"))
    assert not any("key" in value.lower() or value.startswith(("Bearer", "Token")) for _, value in without.headers)


def completed_video(body: bytes) -> Seen:
    asked = get("openai").question(ACCOUNT, Subject("video_1")).url
    seen = get("openai").read(Subject("video_1"), Response(200, {}, body, NOW, asked=asked))
    assert isinstance(seen, Seen)
    return seen


def test_a_video_without_a_link_is_behind_the_key() -> None:
    (film,) = completed_video(b'{"id": "video_1", "object": "video", "status": "completed", "progress": 100}').outputs
    assert (film.url, film.media_type) == ("https://host.example/v1/videos/video_1/content", "video/mp4")
    provider = get("openai")
    assert isinstance(provider, KeyedFiles)
    assert provider.download_headers(ACCOUNT, film.url) == (("Authorization", "Bearer key-0123456789"),)
    assert provider.download_headers(Account("https://host.example"), film.url) == ()


def test_a_relays_link_needs_no_key() -> None:
    (film,) = completed_video(b'{"id": "video_1", "status": "completed", "url": "https://host.example/f.mp4"}').outputs
    provider = get("openai")
    assert isinstance(provider, KeyedFiles)
    assert provider.download_headers(ACCOUNT, film.url) == ()


def test_a_pending_video_has_no_file() -> None:
    assert completed_video(b'{"id": "video_1", "status": "in_progress"}').outputs == ()


def test_veos_files_are_behind_the_key() -> None:
    provider = get("veo")
    assert isinstance(provider, KeyedFiles)
    assert provider.download_headers(ACCOUNT, "https://host.example/v1beta/files/a:download?alt=media") == (
        ("x-goog-api-key", "key-0123456789"),
    )


def test_an_operations_name_keeps_its_slashes_but_never_climbs() -> None:
    veo = get("veo")
    name = "models/veo-3.0-generate-001/operations/abc"
    assert veo.question(ACCOUNT, Subject(name)).url == f"https://host.example/v1beta/{name}"
    for climbing in ("../files", "operations/../../x", "./a"):
        path = urlsplit(veo.question(ACCOUNT, Subject(climbing)).url).path
        assert not {".", ".."} & set(path.split("/"))
        assert path.startswith("/v1beta/")


def read(provider: str, body: object, task_id: str = "t") -> Observation:
    return get(provider).read(
        Subject(task_id), Response(200, {}, orjson.dumps(body), NOW, asked="https://host.example/t")
    )


def batch_raw(provider: str, body: object) -> object:
    (seen,) = (get(provider).read_batch([Subject("t")], Response(200, {}, orjson.dumps(body), NOW)) or {}).values()
    assert isinstance(seen, Seen)
    return seen.raw


def test_what_a_batch_says_of_one_is_kept_as_the_single_query_shows_it() -> None:
    bare = {"id": "t", "state": "dreaming", "data": None}
    assert batch_raw("luma", [bare]) == bare
    assert batch_raw("luma", {"data": [{"task_id": "t", "status": "IN_PROGRESS", "data": bare}]}) == bare
    song = {"task_id": "t", "status": "QUEUED", "data": []}
    assert batch_raw("suno", {"data": [song]}) == {"code": "success", "message": "", "data": song}
    picture = {"id": "t", "status": "SUBMITTED"}
    assert batch_raw("midjourney", [picture]) == picture


def test_a_records_own_word_counts_whatever_is_inside_it() -> None:
    for inside in (
        {"id": "u", "status": "failed"},
        {"id": "u", "status": "completed", "url": "https://a.example/u.mp4"},
    ):
        seen = read("newapi", {"task_id": "t", "status": "IN_PROGRESS", "data": inside})
        assert isinstance(seen, Seen)
        assert (seen.state, seen.outputs) == (State.PROCESSING, ())


def test_filters_that_are_only_counted_moderated_too() -> None:
    seen = read("veo", {"name": "t", "done": True, "response": {"generateVideoResponse": {"raiMediaFilteredCount": 1}}})
    assert isinstance(seen, Seen)
    assert seen.error is not None
    assert seen.error.code is ErrorCode.MODERATED


@pytest.mark.parametrize(("said", "share"), [(1, 1.0), (0, 0.0), (0.45, 0.45), (1.0, 1.0)])
def test_runways_progress_is_a_fraction_even_when_it_is_whole(said: float, share: float) -> None:
    seen = read("runway", {"id": "t", "status": "RUNNING", "progress": said})
    assert isinstance(seen, Seen)
    assert seen.progress == share


def test_no_address_is_made_up_for_what_is_not_openais_own() -> None:
    record = {"code": "success", "data": {"task_id": "t", "status": "SUCCESS", "result_url": "https://x.example/a.mp4"}}
    seen = read("openai", record)
    assert isinstance(seen, Seen)
    assert [output.url for output in seen.outputs] == ["https://x.example/a.mp4"]
    for body in (
        {"id": "t", "object": "file", "status": "completed"},
        {"id": "t", "status": "completed", "error": {"code": "x"}},
    ):
        seen = read("openai", body)
        assert isinstance(seen, Seen)
        assert seen.outputs == ()


def test_a_linked_song_is_audio() -> None:
    seen = read(
        "suno", {"data": {"task_id": "t", "status": "SUCCESS", "result_url": "https://x.example/a.mp3", "data": None}}
    )
    assert isinstance(seen, Seen)
    assert [output.kind for output in seen.outputs] == ["audio"]


@pytest.mark.parametrize("number", [[1], {}, "1", None, True, 1.5])
def test_hailuos_number_may_be_anything(number: object) -> None:
    seen = read("minimax", {"task_id": "t", "status": "Processing", "base_resp": {"status_code": number}})
    assert isinstance(seen, Seen)
    assert seen.state is State.PROCESSING


def test_an_end_that_only_the_record_knows_is_kept_with_it() -> None:
    ended = {"task_id": "t", "status": "FAILURE", "fail_reason": "timeout", "data": {"id": "t", "state": "processing"}}
    assert batch_raw("luma", {"data": [ended]}) == ended
    empty = {"task_id": "t", "status": "SUCCESS", "result_url": "https://a.example/t.mp4", "data": {}}
    assert batch_raw("luma", {"data": [empty]}) == empty


def test_no_two_outputs_share_a_place() -> None:
    record = {"task_id": "t", "status": "SUCCESS", "result_url": "https://a.example/a.jpg"}
    for inside in ({"assets": {"image": "https://a.example/b.jpg"}}, {"id": "t"}):
        seen = read("luma", {"code": "success", "data": {**record, "data": {"state": "completed", **inside}}})
        assert isinstance(seen, Seen)
        assert [(output.kind, output.index) for output in seen.outputs] == [("image", 0)]


@pytest.mark.parametrize(
    "body",
    [
        {"code": "success", "data": {"id": "t", "object": "video", "status": "completed"}},
        {"id": "t", "object": "video", "status": "completed", "error": {"code": "", "message": ""}},
        {"id": "t", "status": "completed", "progress": 100},
    ],
)
def test_a_completed_video_has_its_file_wherever_the_answer_stands(body: object) -> None:
    seen = read("openai", body)
    assert isinstance(seen, Seen)
    assert [output.url for output in seen.outputs] == ["https://host.example/t/content"]
