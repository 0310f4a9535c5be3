"""Where single providers differ from all the others: how the key is shown, where the files are, ids that hold slashes."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from tracker.core.observation import Seen
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
    (film,) = completed_video(b'{"id": "video_1", "status": "completed", "progress": 100}').outputs
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
