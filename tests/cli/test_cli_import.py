"""`tracker import`: what is good goes in, what is wrong is named by file, line and field."""

from __future__ import annotations

import json
from typing import Any


def test_jsonl_with_every_kind_of_wrong_line(cli: Any) -> None:
    lines = [
        '{"provider": "luma", "task_id": "a", "tags": ["x"], "metadata": {"n": 1}}',
        '{"provider": "luma", "task_id"',
        "",
        '{"provider": "luma", "task_id": "b", "colour": "red"}',
        '["luma", "c"]',
        '{"provider": "luma", "task_id": "a"}',
        '{"provider": "luma", "task_id": "d", "timeout": -1}',
        '{"task_id": "e"}',
    ]
    (cli.folder / "tasks.jsonl").write_text("\ufeff" + "\n".join(lines))
    done = cli("import", "tasks.jsonl", code=1)
    told = dict(line.removeprefix("tracker: ").split(": ", 1) for line in done.stderr.splitlines())
    assert told["tasks.jsonl:2"].startswith("line: it is not JSON")
    assert told["tasks.jsonl:4"] == "colour: there is no such field"
    assert told["tasks.jsonl:5"] == "line: it is not a JSON object"
    assert told["tasks.jsonl:7"].startswith("timeout: ")
    assert told["tasks.jsonl:8"].startswith("provider: ")
    assert len(told) == 5
    assert done.stdout == "1 registered, 1 known already, 5 failed\n"


def test_defaults_for_lines_that_name_no_provider(cli: Any) -> None:
    (cli.folder / "tasks.jsonl").write_text('{"task_id": "a"}\n{"task_id": "b"}\n')
    assert cli.json("import", "tasks.jsonl", "--provider", "luma") == {"registered": 2, "known": 0, "failed": []}


def test_csv_with_lists_metadata_and_broken_rows(cli: Any) -> None:
    rows = [
        "provider,task_id,tags,metadata,download,poll_price",
        'luma,a,"x;y","{""order"": 7}",all,2',
        "luma,b,,,video;thumbnail,",
        "luma,c,,{broken,,",
        "luma,d,,,,cheap",
        "luma,e,,,,,surplus",
        'luma,"two\nlines",,,,',
        "luma,,,,,",
    ]
    (cli.folder / "tasks.csv").write_text("\n".join(rows) + "\n")
    found = cli.json("import", "tasks.csv", code=1)
    assert found["registered"] == 2
    assert [(f["line"], f["detail"].split(":")[0]) for f in found["failed"]] == [
        (4, "metadata"), (5, "poll_price"), (6, "line"), (8, "task_id"), (9, "task_id"),
    ]  # fmt: skip
    b, a = cli.json("list")["data"]
    assert (a["tags"], a["metadata"], a["download"]) == (["x", "y"], {"order": 7}, True)
    assert b["download"] == ["video", "thumbnail"]


def test_csv_that_is_not_utf_8_names_the_line(cli: Any) -> None:
    (cli.folder / "tasks.csv").write_bytes(b"provider,task_id\nluma,caf\xe9\nluma,good\n")
    found = cli.json("import", "tasks.csv", code=1)
    assert (found["registered"], found["failed"][0]["line"]) == (1, 2)


def test_more_lines_than_one_transaction_takes(cli: Any) -> None:
    lines = [json.dumps({"provider": "luma", "task_id": f"task-{n}"}) for n in range(2_050)]
    (cli.folder / "many.jsonl").write_text("\n".join(lines))
    assert cli("import", "many.jsonl").stdout == "2,050 registered, 0 known already, 0 failed\n"
    assert cli("import", "many.jsonl").stdout == "0 registered, 2,050 known already, 0 failed\n"


def test_files_that_cannot_be_read_at_all(cli: Any) -> None:
    assert "does not exist" in cli("import", "nowhere.csv", code=2).stderr
    (cli.folder / "tasks.txt").write_text("a\n")
    assert ".csv or .jsonl" in cli("import", "tasks.txt", code=2).stderr
    (cli.folder / "tasks.csv").write_text("id,name\n1,2\n")
    assert "no column task_id" in cli("import", "tasks.csv", code=2).stderr
