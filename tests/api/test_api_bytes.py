"""The bytes of stored copies: ranges, conditions, links."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from tracker.api import lists, schemas

CONTENT = bytes(range(256)) * 10_000


@pytest.fixture(scope="session")
def stored(shared_api: Any) -> tuple[str, str]:
    """The path of a stored video, and its SHA-256."""
    made = shared_api.register("bytes")["id"]
    return f"/v1/generations/{made}/artifacts/video", shared_api.store(made, CONTENT)


@pytest.fixture
def api(shared_api: Any) -> Any:
    return shared_api


def test_the_whole(api: Any, stored: tuple[str, str]) -> None:
    path, digest = stored
    for place in (path, path + "/0"):
        answer = api.get(place)
        assert (answer.status_code, answer.content == CONTENT) == (200, True)
        assert answer.headers["content-length"] == str(len(CONTENT))
        assert answer.headers["etag"] == f'"{digest}"'
        assert answer.headers["content-type"] == "video/mp4"
        assert answer.headers["accept-ranges"] == "bytes"
        made = path.split("/")[3]
        assert f'filename="{made}-video-0.mp4"' in answer.headers["content-disposition"]


@pytest.mark.parametrize(
    ("wish", "start", "stop"),
    [
        ("bytes=0-0", 0, 1), ("bytes=5-9", 5, 10), ("bytes=2559999-", 2_559_999, 2_560_000), ("bytes=-3", 2_559_997, 2_560_000),
        ("bytes=100-99999999999", 100, 2_560_000), ("bytes=-99999999999", 0, 2_560_000), ("Bytes = 1 - 2", 1, 3),
        ("bytes=1048575-1048577", 1_048_575, 1_048_578),
    ],
)  # fmt: skip
def test_one_range(api: Any, stored: tuple[str, str], wish: str, start: int, stop: int) -> None:
    answer = api.get(stored[0], headers={"Range": wish})
    assert (answer.status_code, answer.content == CONTENT[start:stop]) == (206, True)
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize(
    "wish", ["bytes=0-1,5-6", "bytes=9-5", "items=0-1", "bytes=-", "bytes", "bytes=a-b", "bytes=1e3-"]
)
def test_what_is_no_single_range_is_the_whole(api: Any, stored: tuple[str, str], wish: str) -> None:
    answer = api.get(stored[0], headers={"Range": wish})
    assert (answer.status_code, len(answer.content)) == (200, len(CONTENT))


@pytest.mark.parametrize("wish", ["bytes=2560000-", "bytes=99999999999-", "bytes=-0"])
def test_a_range_outside_is_416(api: Any, stored: tuple[str, str], wish: str) -> None:
    answer = api.get(stored[0], headers={"Range": wish})
    api.problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_conditions(api: Any, stored: tuple[str, str]) -> None:
    path, digest = stored
    same = api.get(path, headers={"If-None-Match": f'"{digest}"'})
    assert (same.status_code, same.content) == (304, b"")
    part = {"Range": "bytes=0-9"}
    assert api.get(path, headers={**part, "If-Range": f'"{digest}"'}).status_code == 206
    assert api.get(path, headers={**part, "If-Range": '"other"'}).status_code == 200
    assert api.get(path, headers={**part, "If-Range": f'W/"{digest}"'}).status_code == 200


def test_head_tells_the_same_without_the_bytes(api: Any, stored: tuple[str, str]) -> None:
    answer = api.call("HEAD", stored[0], headers={"Range": "bytes=0-9"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(CONTENT))


def test_a_link_needs_no_key(api: Any, stored: tuple[str, str]) -> None:
    for place in ("/link", "/0/link"):
        made = api.shows(api.post(stored[0] + place, {"expires_in": "PT5M"}), schemas.LinkShown)
        answer = requests.get(
            made["url"].replace(api.settings.base_url, api.url), headers={"Range": "bytes=0-3"}, timeout=10
        )
        assert (answer.status_code, answer.content) == (206, CONTENT[:4])
    api.shows(api.post(stored[0] + "/link"), schemas.LinkShown)
    api.problem(api.post(stored[0] + "/link", {"expires_in": "a while"}), 422, "invalid", "expires_in")


def test_an_altered_link_is_refused(api: Any, stored: tuple[str, str]) -> None:
    url = api.post(stored[0] + "/link").json()["url"].replace(api.settings.base_url, api.url)
    other = url.replace("signature=", "signature=0")
    later = url.replace("expires=1", "expires=2")
    elsewhere = url.replace("/video/0", "/video/1")
    for wrong in (other, later, elsewhere):
        answer = requests.get(wrong, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert requests.get(url.partition("&signature")[0], timeout=10).status_code == 401


def test_what_is_not_stored(api: Any, stored: tuple[str, str]) -> None:
    base = stored[0].removesuffix("video")
    for missing in ("audio", "video/1", "nonsense", "video_raw/3"):
        api.problem(api.get(base + missing), 404, "not_found")
    for wrong in ("video/-1", "video/x", "video/99999999999"):
        api.problem(api.get(base + wrong), 422, "invalid", "index")
    api.problem(api.get(base + "vi%00deo"), 422, "invalid", "kind")
    page = api.shows(api.get(base.rstrip("/")), lists.ArtifactPage)
    assert [(a["kind"], a["state"], a["size"]) for a in page["data"]] == [("video", "stored", len(CONTENT))]
    assert page["data"][0]["url"].endswith(stored[0] + "/0")


def test_a_file_that_is_gone_is_told_before_the_answer_begins(api: Any) -> None:
    made = api.register("gone")["id"]
    api.store(made, b"x" * 100)
    for file in Path(api.settings.artifacts.removeprefix("file://")).rglob("*.mp4"):
        if file.stat().st_size == 100:
            file.unlink()
    api.problem(api.get(f"/v1/generations/{made}/artifacts/video"), 404, "not_found")


def test_an_empty_file(api: Any) -> None:
    made = api.register("empty")["id"]
    api.store(made, b"")
    path = f"/v1/generations/{made}/artifacts/video"
    assert (api.get(path).status_code, api.get(path).content) == (200, b"")
    api.problem(api.get(path, headers={"Range": "bytes=0-"}), 416, "range_not_satisfiable")
