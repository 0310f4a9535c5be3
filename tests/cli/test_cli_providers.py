"""Providers from the shell: which there are, and whether a description reads answers as its author means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.services.test_described_providers import FILE, FILM
from tracker.providers import BUILT_IN, take_in


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acme.toml"
    path.write_text(FILE)
    return path


def test_all_providers_are_listed_with_what_is_asked(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "acme.toml").write_text(FILE)
    home = {"TRACKER_HOME": str(tmp_path)}
    try:
        listed = {
            row["provider"]: row
            for row in json.loads(cli("providers", "list", "--json", variables=home).stdout)["data"]
        }
        shown = cli("providers", "list", variables=home).stdout
    finally:
        take_in(tmp_path / "nothing")
    assert listed.keys() == {*BUILT_IN, "acme"}
    assert listed["luma"]["asked"] == "GET /luma/generations/{id}"
    assert (listed["luma"]["many"], listed["luma"]["from"]) == (50, "built in")
    assert (listed["acme"]["asked"], listed["acme"]["from"]) == ("GET /acme/jobs/{id}", "file")
    assert "https://api.acme.example" in shown


def test_a_description_shows_what_it_asks(cli: Any, file: Path) -> None:
    told = cli("providers", "check", str(file), "--task-id", "t 1").stdout
    assert told.splitlines() == [
        "acme asks",
        "  GET https://api.acme.example/acme/jobs/t%201",
        "  Accept: application/json",
        "  Authorization: Token YOUR_KEY",
    ]


def test_and_what_an_answer_is_read_as(cli: Any, file: Path, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"job": "t-1", "phase": "baked", "files": [FILM]}))
    arguments = ("providers", "check", str(file), "--answer", str(answer), "--task-id", "t-1")
    reads = cli.json(*arguments)["reads"]
    assert (reads["state"], reads["provider_status"]) == ("completed", "baked")
    assert reads["outputs"] == [{"kind": "video", "index": 0, "url": FILM, "media_type": "video/mp4"}]
    assert f"outputs: kind=video  index=0  url={FILM}" in cli(*arguments).stdout


def test_an_answer_without_a_state_ends_with_1(cli: Any, file: Path, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"job": "TASK_ID", "phase": "dancing"}))
    told = cli("providers", "check", str(file), "--answer", str(answer), code=1).stdout
    assert "problem: code=unknown_status  message=the status 'dancing' is not known" in told


def test_a_wrong_file_ends_with_2_and_one_line(cli: Any, file: Path) -> None:
    file.write_text(FILE.replace("[answer]", "[answers]"))
    wrong = cli("providers", "check", str(file), code=2).stderr
    assert wrong.endswith("correct it\n")
    assert wrong.count("\n") == 1
    assert "answer: is wrong (field required)" in wrong
    assert "No such file" in cli("providers", "check", str(file.with_name("none.toml")), code=2).stderr


def test_doctor_knows_the_variables_of_described_providers(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "acme.toml").write_text(FILE)
    variables = {"TRACKER_HOME": str(tmp_path), "TRACKER_ACME_API_KEY": "k", "TRACKER_ACNE_API_KEY": "k"}
    try:
        told = cli("doctor", variables=variables, code=1).stdout
    finally:
        take_in(tmp_path / "nothing")
    assert "TRACKER_ACNE_API_KEY is not known" in told
    assert "TRACKER_ACME_API_KEY is not known" not in told
