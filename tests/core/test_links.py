"""When links end, in the forms that the great stores and CDNs write, and where copies lie."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.core import links, places

END = datetime(2026, 11, 23, 13, 0, 0, tzinfo=UTC)
SECONDS = int(END.timestamp())
AT = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20261123T120000Z&X-Amz-Expires=3600&X-Amz-Signature=x",
        "X-Goog-Date=20261123T120000Z&X-Goog-Expires=3600",
        "X-Tos-Expires=3600&X-Tos-Date=20261123T120000Z",
        f"AWSAccessKeyId=x&Expires={SECONDS}&Signature=x",
        f"Expires={SECONDS}000",
        f"expires={SECONDS}.123&signature=x",
        f"e={SECONDS}&token=x",
        f"exp={SECONDS}",
        "sv=2024-01-01&se=2026-11-23T13%3A00%3A00Z&sig=x",
        f"hdnts=st=1~exp={SECONDS}~acl=/*~hmac=x",
    ],
)
def test_the_end_is_known_from_the_query(query):
    found = links.expires_at(f"https://cdn.example/a.mp4?{query}")
    assert found is not None
    assert found.replace(microsecond=0) == END


@pytest.mark.parametrize(
    "query",
    ["", "e=1", "exp=high", "Expires=never", "X-Amz-Expires=3600", "X-Amz-Date=now&X-Amz-Expires=3600", "se=x",
     "X-Amz-Date=20261123T120000Z&X-Amz-Expires=99999999999999", "Expires=-1", "e=2026"],
)  # fmt: skip
def test_what_tells_no_end(query):
    assert links.expires_at(f"https://cdn.example/a.mp4?{query}") is None


@given(st.text())
def test_no_link_is_too_strange_to_look_at(text):
    links.expires_at(f"https://cdn.example/?{text}")
    links.expires_at(text)


def test_the_template_of_keys():
    key = places.by_generation("default", "luma", AT, "gen_1", "video", 0, "video/mp4")
    assert key == "default/luma/2026/11/gen_1/video-0.mp4"
    assert not places.is_by_content(key)
    shared = places.by_content("default", "ab" * 32, "image/webp")
    assert shared == f"default/sha256/ab/{'ab' * 32}.webp"
    assert places.is_by_content(shared)


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_names_of_projects_become_folders_and_stay_apart(one, other):
    made = places.safe(one)
    assert made.strip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == ""
    assert made not in {"", ".", ".."}
    assert not made.startswith(".")
    assert len(made) <= 80
    assert (places.safe(other) == made) == (one == other)
