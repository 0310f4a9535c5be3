"""Providers that a file describes: what they ask and read, and which files are refused with which line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker import providers
from tracker.core.generation import ErrorCode, Output, State
from tracker.core.observation import Problem, ProblemCode, Seen
from tracker.errors import ConfigurationError
from tracker.providers import REGISTRY, files
from tracker.providers.base import Account, Response, Subject
from tracker.providers.described import Described, Description
from tracker.settings import load

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT = Account("https://relay.example/", "sk-the-key-0123456789")
ACME = """
base_url = "https://api.acme.example"
path = "/v1/{kind}/jobs/{id}"
kinds = ["text2video", "image2video"]
authorization = "Token {key}"
headers = {X-Version = "2"}

[answer]
id = "job.id"
status = "job.state"
progress = "job.percent"
reason = "job.error.text"
code = "job.error.code"
started_at = "job.started"

[states]
queued = ["Waiting for GPU"]
completed = ["all-good", "3"]

[[outputs]]
each = "job.files[?type == 'movie']"
kind = "video"
url = "link"
width = "size.w"
height = "size.h"
duration = "seconds"

[[outputs]]
each = "job.cover"
kind = "thumbnail"

[[outputs]]
each = "job.stems"
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "providers").mkdir()
    yield tmp_path
    providers.take_in(tmp_path / "nothing")


def described(text: str, folder: Path, name: str = "acme") -> Described:
    file = folder / f"{name}.toml"
    file.write_text(text)
    return files.described(file)


@pytest.fixture
def acme(tmp_path: Path) -> Described:
    return described(ACME, tmp_path)


def read(provider: Described, body: Any, status: int = 200) -> Any:
    return provider.read(Subject("t-1"), Response(status, {}, json.dumps(body).encode(), NOW))


def job(state: object, **more: Any) -> dict[str, Any]:
    return {"job": {"id": "t-1", "state": state, **more}}


def test_it_asks_where_the_file_says_with_its_headers(acme: Described) -> None:
    asked = acme.question(ACCOUNT, Subject("a/b?c", "image2video"))
    assert (asked.method, asked.url) == ("GET", "https://relay.example/v1/image2video/jobs/a%2Fb%3Fc")
    assert dict(asked.headers) == {
        "Accept": "application/json",
        "Authorization": "Token sk-the-key-0123456789",
        "X-Version": "2",
    }
    assert acme.question(ACCOUNT, Subject("t")).url.endswith("/v1/text2video/jobs/t"), (
        "the first kind where none is given"
    )
    keyless = acme.question(Account("https://relay.example", None), Subject("t"))
    assert "Authorization" not in dict(keyless.headers)
    assert "the-key" not in repr(asked)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("Waiting for GPU", State.QUEUED),
        ("waiting_for-gpu", State.QUEUED),
        ("all-good", State.COMPLETED),
        (3, State.COMPLETED),
        ("RUNNING", State.PROCESSING),
        ("canceled", State.CANCELLED),
    ],
)
def test_words_of_the_file_and_of_the_common_table_are_states(acme: Described, word: object, state: State) -> None:
    assert read(acme, job(word)).state is state


def test_progress_and_the_start_are_read(acme: Described) -> None:
    seen = read(acme, job("running", percent=42, started=1_767_225_600))
    assert (seen.progress, seen.started_at) == (0.42, NOW)
    assert read(acme, job("running")).progress is None


def test_files_are_read_by_kind_with_what_is_told_about_them(acme: Described) -> None:
    movie = {"type": "movie", "link": "https://f.example/1", "size": {"w": 1280, "h": 720}, "seconds": 5}
    seen = read(
        acme,
        job(
            "all-good",
            files=[
                movie,
                {"type": "log", "link": "https://f.example/log"},
                movie | {"link": "https://f.example/2.mov"},
            ],
            cover="https://f.example/c.png",
            stems=["https://f.example/a.mp3", None, "no link", "https://f.example/b.wav"],
        ),
    )
    assert seen.outputs == (
        Output("video", 0, "https://f.example/1", 1280, 720, 5.0),
        Output("video", 1, "https://f.example/2.mov", 1280, 720, 5.0, "video/quicktime"),
        Output("thumbnail", 0, "https://f.example/c.png", media_type="image/png"),
        Output("audio", 0, "https://f.example/a.mp3", media_type="audio/mpeg"),
        Output("audio", 1, "https://f.example/b.wav", media_type="audio/wav"),
    )
    assert read(acme, job("running", cover="https://f.example/c.png")).outputs == (), "before the end it is a preview"


def test_a_bad_end_keeps_its_reason_and_its_code(acme: Described) -> None:
    seen = read(acme, job("failed", error={"text": "the prompt violates our content policy", "code": 17}))
    assert (seen.state, seen.error.code, seen.error.provider_code) == (State.FAILED, ErrorCode.MODERATED, "17")
    assert seen.error.message == "the prompt violates our content policy"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (job("dancing"), 200, ProblemCode.UNKNOWN_STATUS),
        (job("running") | {"job": {"id": "other", "state": "running"}}, 200, ProblemCode.UNREADABLE),
        ({"oops": 1}, 200, ProblemCode.UNREADABLE),
        ([], 200, ProblemCode.UNREADABLE),
        ({"error": "no"}, 404, ProblemCode.NOT_FOUND),
        ({"error": "no"}, 401, ProblemCode.UNAUTHORIZED),
        ({"error": "insufficient balance"}, 403, ProblemCode.OUT_OF_QUOTA),
        ({}, 429, ProblemCode.RATE_LIMITED),
        ({}, 503, ProblemCode.HTTP_ERROR),
    ],
)
def test_what_is_not_well_formed_is_a_problem_and_never_a_state(
    acme: Described, body: Any, status: int, code: ProblemCode
) -> None:
    seen = acme.read(Subject("t-1", "text2video"), Response(status, {}, json.dumps(body).encode(), NOW))
    assert isinstance(seen, Problem)
    assert seen.code is code


def test_the_file_in_the_documentation_is_read_as_it_says(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "PROVIDERS.md").read_text()
    provider = described(text.split("```toml\n")[1].split("```")[0], tmp_path)
    files_ = [{"type": "movie", "link": "https://f.example/1.mp4", "size": {"w": 640}}]
    seen = read(provider, job("all-good", percent=100, files=files_, cover="https://f.example/c.png"))
    assert (seen.state, seen.progress) == (State.COMPLETED, 1.0)
    assert [(o.kind, o.url, o.width) for o in seen.outputs] == [
        ("video", "https://f.example/1.mp4", 640),
        ("thumbnail", "https://f.example/c.png", None),
    ]


def test_an_envelope_that_says_error_is_no_failed_task(acme: Described) -> None:
    seen = read(acme, {"job": {"state": "error", "message": "rate limit exceeded"}})
    assert isinstance(seen, Problem)
    assert seen.message.startswith("the answer has no id: ")


def test_a_task_that_is_missing_where_a_kind_was_guessed_proves_nothing(acme: Described) -> None:
    missing = Response(404, {}, b'{"error": "no such job"}', NOW)
    assert acme.read(Subject("t-1", "image2video"), missing).code is ProblemCode.NOT_FOUND
    guessed = acme.read(Subject("t-1"), missing)
    assert (guessed.code, "asked for as 'text2video'" in guessed.message) == (ProblemCode.UNKNOWN_STATUS, True)


@pytest.mark.parametrize(
    ("whole", "said", "share"),
    [
        (100, 1, 0.01), (100, 1.0, 0.01), (100, 0.5, 0.005), (100, "42 %", 0.42), (100, "42", 0.42), (100, 250, 1.0), (1, 1, 1.0),
        (1, "1", 1.0), (1, 0.25, 0.25), (1, "25%", 0.25), (1, -1, 0.0), (100, "soon", None), (100, [1], None), (100, "nan", None),
    ],
)  # fmt: skip
def test_progress_counts_up_to_what_the_file_says(tmp_path: Path, whole: int, said: object, share: float) -> None:
    provider = described(ACME.replace("[states]", f"progress_whole = {whole}\n[states]"), tmp_path)
    assert read(provider, job("running", percent=said)).progress == share


def test_numbers_of_any_length_are_no_numbers(tmp_path: Path) -> None:
    changed = ACME.replace('"job.percent"', '"to_number(job.percent)"').replace('"seconds"', '"to_number(seconds)"')
    provider = described(
        changed.replace('"job.state"', '"job.state || sum([to_number(job.a), to_number(job.a)])"'), tmp_path
    )
    movie = {"type": "movie", "link": "https://f.example/1", "seconds": "9" * 400}
    assert read(provider, job("running", percent="9" * 400)).progress is None
    assert read(provider, job("all-good", files=[movie])).outputs[0].duration is None
    assert isinstance(read(provider, job("", a="9" * 4300)), Problem)


def test_a_byte_order_mark_and_files_of_editors_do_no_harm(home: Path) -> None:
    (home / "providers" / "acme.toml").write_bytes(b"\xef\xbb\xbf" + ACME.encode())
    (home / "providers" / ".#acme.toml").write_text("x")
    (home / "providers" / "README").write_text("x")
    providers.take_in(home)
    assert REGISTRY.keys() == {*providers.BUILT_IN, "acme"}


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "providers").write_text("x")
    with pytest.raises(ConfigurationError, match=r"providers: cannot be read \(Not a directory\)"):
        providers.take_in(tmp_path)


def test_true_and_false_are_words_too(tmp_path: Path) -> None:
    text = 'base_url = "https://a.example"\npath = "/{id}"\n[answer]\nstatus = "done"\nprogress = "p"\nprogress_whole = 1\n'
    text += '[states]\nprocessing = ["false"]\ncompleted = ["true"]\n[[outputs]]\neach = "url"\n'
    provider = described(text, tmp_path)
    assert read(provider, {"done": False, "p": 1}).state is State.PROCESSING
    assert read(provider, {"done": False, "p": 1}).progress == 1.0
    seen = read(provider, {"done": True, "url": "https://f.example/x"})
    assert (seen.state, seen.outputs) == (State.COMPLETED, (Output("video", 0, "https://f.example/x"),))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["job", "id", "state", "files", "cover", "size"]), inner)
    ),
)
HUNGRY = {
    "base_url": "https://a.example",
    "path": "/{id}",
    "answer": {"status": "job.state || join('', job)", "progress": "avg(job)", "reason": "sort_by(job, &state)"},
    "outputs": [{"each": "job.files[].values(@)", "width": "sum(@)", "duration": "to_number(size)"}],
}


@settings(max_examples=100)
@given(body=JSON)
def test_it_never_raises_whatever_came(body: Any) -> None:
    provider = Described("hungry", Description.model_validate(HUNGRY))
    seen = provider.read(Subject("t-1"), Response(200, {}, json.dumps(body).encode(), NOW))
    assert isinstance(seen, Seen | Problem)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("base_url = ", "base = "), r"acme\.toml: base_url: is wrong \(field required\)"),
        (("[answer]", "[answers]"), r"acme\.toml: answer: is wrong"),
        (('id = "job.id"', 'ident = "job.id"'), r"acme\.toml: answer\.ident: is no field of such a file; leave it out"),
        (('"job.state"', '"job..state"'), r"acme\.toml: answer\.status: .*'job\.\.state' is not a JMESPath expression"),
        (('"job.state"', '"lower(job.state)"'), "there is no function 'lower' in JMESPath"),
        (('"job.state"', '"a[?join(b)].c"'), "the function 'join' takes 2 arguments, and 1 are given"),
        (('"job.state"', "7"), r"answer\.status: is wrong \(write a JMESPath expression"),
        (("/jobs/{id}", "/jobs/"), r"path: it must hold \{id\}"),
        (("/v1/{kind}", "/v1/{sort}"), r"may hold \{id\} and \{kind\} in braces"),
        (("/v1/{kind}", "/v1"), r"kinds: name the families that \{kind\}"),
        (("/v1/{kind}", "/v1/{kind"), r"write a brace as \{\{ or \}\}"),
        (("path = ", "path = ' '#"), "path: begin it with a slash"),
        (("/jobs/{id}", "/jobs/{id}#x"), "path: .* without a fragment"),
        (("/v1/", "/任务/"), "path: .* all but ASCII percent-encoded"),
        (('X-Version = "2"', 'authorization = "2"'), "'authorization' is set already"),
        (('X-Version = "2"', 'ACCEPT = "2"'), "'ACCEPT' is set already"),
        (('X-Version = "2"', 'X-A = "2", x-a = "2"'), "'x-a' is set already"),
        (('X-Version = "2"', 'X-Version = "{key:}"'), r"may hold \{key\} in braces and nothing else"),
        (('X-Version = "2"', 'X-Version = "{key.x}"'), r"may hold \{key\} in braces and nothing else"),
        (('"https://api.acme.example"', '"https://api.acme.example:99999"'), "base_url: is wrong"),
        (('"https://api.acme.example"', '"https://a.example/?x=1"'), "base_url: is wrong"),
        (('"Token {key}"', '"Token {secret}"'), r"may hold \{key\} in braces"),
        (('X-Version = "2"', 'Host = "2"'), "'Host' is not a header that may be set"),
        (('X-Version = "2"', 'X-Version = "2\\n"'), "must be plain ASCII on one line"),
        (('"all-good"', '"waiting for gpu"'), "'waiting_for_gpu' is in both queued and completed"),
        (("queued = ", "waiting = "), r"states\.waiting"),
        (('kind = "video"', 'kind = "film"'), r"outputs\.0\.kind: is wrong \(input should be 'video'"),
        (('"https://api.acme.example"', '"ftp://api.acme.example"'), "base_url: .*it must be a plain address"),
        (("[answer]", "[answer"), r"acme\.toml: is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_field_and_the_mend(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    assert change[0] in ACME
    with pytest.raises(ConfigurationError, match=told) as caught:
        described(ACME.replace(*change, 1), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Acme", "acme_video", "-acme", "bootstrap", "a" * 41, "7up"])
def test_a_name_that_a_variable_cannot_spell_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a provider's name"):
        described(ACME, tmp_path, name)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"acme\.toml: is not TOML"):
        files.described(tmp_path / "acme.toml")
    with pytest.raises(ConfigurationError, match=r"missing\.toml: cannot be read \(No such file"):
        files.described(tmp_path / "missing.toml")


def test_a_home_adds_its_own_and_takes_them_back(home: Path) -> None:
    described(ACME, home / "providers")
    providers.take_in(home)
    assert providers.get("acme").kinds == ("text2video", "image2video")
    assert providers.batch_sizes()["acme"] == 1
    (home / "providers" / "acme.toml").unlink()
    providers.take_in(home)
    assert REGISTRY.keys() == providers.BUILT_IN


def test_a_built_in_provider_is_not_described_anew(home: Path) -> None:
    described(ACME, home / "providers", "luma")
    with pytest.raises(
        ConfigurationError, match=r"luma\.toml: 'luma' is a built-in provider; give the file another name"
    ):
        providers.take_in(home)
    assert REGISTRY.keys() == providers.BUILT_IN


def test_its_variables_make_its_default_credential(home: Path) -> None:
    described(ACME, home / "providers", "acme-video")
    environ = {
        "TRACKER_HOME": str(home),
        "TRACKER_ACME_VIDEO_API_KEY": "k",
        "TRACKER_ACME_VIDEO_BASE_URL": "https://r.example",
    }
    account = load(environ, None).accounts["acme-video"]
    assert (account.base_url, account.api_key and account.api_key.get_secret_value()) == ("https://r.example", "k")
