"""Registering, listing, showing, following and ending generations from the shell."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tracker.cli.generations import COLUMNS
from tracker.cli.render import ago, size_of, span, table
from tracker.core import ids
from tracker.core.generation import Output, State
from tracker.core.lifecycle import Decision
from tracker.couriers.store import store_at
from tracker.services import steps
from tracker.store import artifacts, db, generations
from tracker.wiring import Services

Register = Callable[..., dict[str, Any]]


def test_every_field_of_a_registration_is_an_option(cli: Any, registered: Register) -> None:
    options = (
        "--webhook-url", "http://127.0.0.1:9/hook", "--event", "generation.completed", "--download", "video", "--download", "thumbnail",
        "--metadata", '{"order": 7}', "--tag", "a", "--tag", "b", "--model", "ray-2", "--timeout", "PT1H", "--give-up-after", "7200",
        "--submitted-at", "2026-01-01T00:00:00Z", "--poll-price", "1", "--poll-longest", "30",
    )  # fmt: skip
    made = registered("task-1", *options)
    assert made["state"] == "registered"
    assert (made["events"], made["download"]) == (["generation.completed"], ["video", "thumbnail"])
    assert (made["metadata"], made["tags"], made["model"]) == ({"order": 7}, ["a", "b"], "ray-2")
    assert made["submitted_at"] == "2026-01-01T00:00:00.000000Z"


def test_registering_again_is_no_error_and_a_bad_one_stops_no_other(cli: Any) -> None:
    first = cli("register", "luma", "task-1").stdout
    done = cli("register", "luma", "task-1", "two words", "task-2", code=1)
    assert first.replace("registered", "known already") in done.stdout
    assert done.stdout.count("registered") == 1
    assert done.stderr.startswith("tracker: two words: task_id: ")
    conflict = cli("register", "luma", "task-1", "--tag", "other", code=1).stderr
    assert "tags: differs" in conflict
    assert "(stored as gen_" in conflict


def test_the_list_is_filtered_and_told_in_relative_times(cli: Any, registered: Register) -> None:
    kept = [registered(f"task-{n}", "--tag", "odd" if n % 2 else "even")["id"] for n in range(3)]
    assert [g["id"] for g in cli.json("list")["data"]] == kept[::-1]
    assert [g["id"] for g in cli.json("list", "--tag", "odd")["data"]] == [kept[1]]
    assert cli.json("list", "--since", "1h", "--task-id", "task-2")["data"][0]["id"] == kept[2]
    assert cli("list", "--state", "failed").stdout == "no generations\n"
    page = cli("list", "--limit", "2").stdout
    assert page.splitlines()[0].split() == ["id", "provider", "state", "done", "age", "next", "poll"]
    assert "there are more" in page


def test_a_table_of_generations_fits_80_columns_with_whole_ids() -> None:
    row = {
        "id": "gen_01m838v82qftbs4jqp0jtfp51f", "provider": "runway-official", "state": "processing", "progress": "100 %",
        "age": "47 h 59 min", "next": "in 9.9 s",
    }  # fmt: skip
    screen = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    screen.print(table([row, row], COLUMNS))
    lines = screen.export_text().splitlines()
    screen.file.close()
    assert len(lines) == 3, "no line is broken"
    assert all(len(line) <= 80 for line in lines)
    assert all("gen_01m838v82qftbs4jqp0jtfp51f" in line and "processing" in line for line in lines[1:])


def test_show_tells_the_history_and_why_it_waits(cli: Any, registered: Register) -> None:
    made = registered("task-1")
    said = cli("show", made["id"]).stdout
    assert "task-1" in said
    assert "-> registered" in said
    [reason] = cli.json("show", made["id"], "--why")["why"]
    assert reason.startswith("it is due now") or "beat has not rung" in reason
    cli("pause", "polls", "--reason", "relay maintenance")
    reasons = cli.json("show", made["id"], "--why")["why"]
    assert reasons[0] == "polls are stopped for the whole installation (relay maintenance); `tracker resume polls`"


def test_cancelling_and_asking_again(cli: Any, registered: Register) -> None:
    one, two = registered("task-1")["id"], registered("task-2")["id"]
    assert "(asking now)" in cli("poll", one).stdout
    assert cli.json("cancel", one)["data"][0]["state"] == "cancelled"
    done = cli("poll", one, two, code=1)
    assert "it is cancelled, and that is final" in done.stderr
    assert two in done.stdout
    assert cli.json("show", one, "--why")["why"] == ["it is cancelled, and that is final; nobody is asked any more"]


def test_following_ends_with_the_generation(cli: Any, registered: Register) -> None:
    made = registered("task-1")
    following = cli.starts("show", made["id"], "--follow")
    assert following.stdout is not None
    for line in following.stdout:
        if "-> registered" in line:
            break
    cli("cancel", made["id"])
    rest, wrong = following.communicate(timeout=20)
    assert (following.returncode, wrong) == (0, "")
    assert rest.strip().endswith("registered -> cancelled")


@pytest.mark.parametrize("command", ["watch", "events"])
def test_watching_tells_each_change_in_a_line_until_it_is_told_to_end(
    cli: Any, registered: Register, command: str
) -> None:
    one, two = registered("task-1"), registered("task-2")
    cli("cancel", one["id"])
    watching = cli.starts(command, "--json", *(["--after", "start"] if command == "events" else []))
    assert watching.stdout is not None
    lines = (json.loads(line) for line in watching.stdout)
    cancelled = (g["id"] for g in (line.get("data", line) for line in lines) if g["state"] == "cancelled")
    assert next(cancelled) == one["id"]
    cli("cancel", two["id"])
    assert next(cancelled) == two["id"]
    watching.send_signal(signal.SIGINT)
    _, wrong = watching.communicate(timeout=20)
    assert (watching.returncode, wrong) == (0, "")


@pytest.fixture
def stored(services: Services, registered: Register) -> tuple[str, bytes, Path]:
    """A completed generation with a stored copy: its id, the bytes, and the file in the store."""
    public, content = registered("task-1", "--download", "all")["id"], b"moving pictures" * 1000
    key = ids.parse("gen", public)
    assert key is not None
    store = store_at(services.settings.artifacts, services.settings.home / "spool")
    with services.database.transaction() as tx:
        now = db.now(tx)
        [g] = generations.lock(tx, [key])
        decision = Decision(
            to=State.COMPLETED, provider_status="completed", outputs=(Output("video", 0, "http://x/v.mp4"),), over=True
        )
        step = steps.observed(g, decision, now, "http://x")
        generations.rewrite(tx, [step.generation], now)
        artifacts.wish(tx, [(g, output) for output in step.generation.outputs], now)
    return public, content, _keep(services, store, key, content)


def _keep(services: Services, store: Any, key: Any, content: bytes) -> Path:
    """Put bytes where the downloading worker would have, and record them as it does."""
    del store
    object_key = f"copies/{key}.mp4"
    path = Path(services.settings.artifacts.removeprefix("file://")) / object_key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with services.database.transaction() as tx:
        from sqlalchemy import text

        tx.execute(
            text(
                "UPDATE artifacts SET state = 'stored', size = :size, bytes_done = :size, sha256 = :sha256, media_type = 'video/mp4',"
                " object_key = :object_key, stored_at = now(), due_at = NULL WHERE generation_id = :id"
            ),
            {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "object_key": object_key, "id": key},
        )
    return path


def test_downloading_a_copy_to_a_file_a_folder_and_a_pipe(cli: Any, stored: tuple[str, bytes, Path]) -> None:
    public, content, _ = stored
    cli("download", public)
    assert (cli.folder / f"{public}-video-0.mp4").read_bytes() == content
    assert cli.json("download", public, "-o", "film.mp4")["artifact"]["size"] == len(content)
    assert (cli.folder / "film.mp4").read_bytes() == content
    assert cli("download", public, "-o", "-").stdout.encode() == content
    assert "no artifact" in cli("download", public, "--kind", "audio", code=1).stderr


def test_an_interrupted_download_goes_on_where_it_stopped(cli: Any, stored: tuple[str, bytes, Path]) -> None:
    public, content, path = stored
    part = cli.folder / "film.mp4.part"
    part.write_bytes(content[:-3])
    path.write_bytes(b"\0" * (len(content) - 3) + content[-3:])  # only what is asked for now can be right
    cli("download", public, "-o", "film.mp4")
    assert (cli.folder / "film.mp4").read_bytes() == content
    assert not part.exists()


def test_what_another_download_left_is_begun_anew(cli: Any, stored: tuple[str, bytes, Path]) -> None:
    public, content, _ = stored
    for left in (b"something else", content + b"longer"):
        (cli.folder / "film.mp4.part").write_bytes(left)
        cli("download", public, "-o", "film.mp4")
        assert (cli.folder / "film.mp4").read_bytes() == content


def test_the_rules_of_a_project_are_shown_and_changed(cli: Any) -> None:
    assert cli.json("artifacts", "rules")["keep_for"] is None
    changed = cli.json(
        "artifacts",
        "rules",
        "--download",
        "video,thumbnail",
        "--keep-for",
        "30d",
        "--keep-bytes",
        "100GB",
        "--quota",
        "200GB",
    )
    assert changed == {
        "download": ["video", "thumbnail"],
        "keep_for": 30 * 86400,
        "keep_bytes": 100 << 30,
        "quota_bytes": 200 << 30,
    }
    assert cli.json("artifacts", "rules", "--keep-for", "forever", "--quota", "none") == {
        **changed,
        "keep_for": None,
        "quota_bytes": None,
    }
    assert "the kinds are" in cli("artifacts", "rules", "--download", "films", code=2).stderr
    assert "write 30d" in cli("artifacts", "rules", "--keep-for", "soon", code=2).stderr


def test_a_damaged_copy_is_found_and_never_handed_out(cli: Any, stored: tuple[str, bytes, Path]) -> None:
    public, _, path = stored
    assert cli.json("artifacts", "verify") == {"checked": 1, "broken": []}
    path.write_bytes(b"rotten")
    assert "differs" in cli("artifacts", "verify", code=1).stderr
    assert "damaged" in cli("download", public, code=1).stderr
    assert list(cli.folder.iterdir()) == []
    path.unlink()
    assert "cannot be read" in cli.json("artifacts", "verify", code=1)["broken"][0]["detail"]


def test_spans_and_sizes_as_people_say_them(services: Services) -> None:
    assert [span(s) for s in (0.44, 42, 150, 7500, 7200, 900_000)] == [
        "0.4 s",
        "42 s",
        "2 min",
        "2 h 5 min",
        "2 h",
        "10 d",
    ]
    assert [size_of(n) for n in (None, 0, 999, 68_047, 5_000_000)] == ["-", "0 B", "999 B", "68.0 kB", "5.0 MB"]
    with services.database.transaction() as tx:
        now = db.now(tx)
    assert (ago(now, now), ago(None, now)) == ("now", "-")
