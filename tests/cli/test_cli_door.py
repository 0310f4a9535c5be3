"""What holds for every command: fast help, one line for an error, the right exit code, no secret on screen."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from tracker.store.migrations import configuration, empties, head
from tracker.wiring import Services

COMMANDS = [
    "up", "demo", "register", "import", "list", "show", "watch", "cancel", "poll", "download", "replay", "pause", "resume", "endpoints", "deliveries",
    "credentials", "keys", "artifacts", "clocks", "events", "listen", "migrate", "doctor", "backup", "restore", "simulator", "states",
]  # fmt: skip


def test_help_names_every_command_and_is_fast(bare: Any) -> None:
    bare.alone("--help")  # compiled files are there from now on
    began = time.perf_counter()
    said = bare.alone("--help").stdout
    took = time.perf_counter() - began
    assert [name for name in COMMANDS if f" {name} " not in said] == []
    assert took < 5.0, "0.3 s on an idle machine; the bound leaves room for a very busy one"


def test_help_imports_neither_database_nor_network(bare: Any) -> None:
    heavy = ("sqlalchemy", "requests", "celery", "pydantic", "cryptography", "fastapi")
    code = (
        "import sys\nfrom tracker.cli import main\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=bare.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["frobnicate"], "no such command"),
        (["register", "luma"], "missing argument"),
        (["list", "--state", "asleep"], "'asleep' is no state"),
        (["list", "--limit", "0"], "--limit"),
        (["replay"], "give either a DELIVERY_ID"),
        (["pause", "everything"], "everything"),
    ],
)
def test_asking_wrongly_is_one_line_and_exit_code_2(cli: Any, arguments: list[str], told: str) -> None:
    said = cli(*arguments, code=2).stderr
    assert told in said
    assert said.startswith("tracker: ")
    assert "--help" in said
    assert said.count("\n") == 1


def test_a_wrong_setting_names_the_variable_and_the_mend(cli: Any) -> None:
    said = cli("list", code=2, variables={"TRACKER_API_PORT": "eighty"}).stderr
    assert said.startswith("tracker: TRACKER_API_PORT: is wrong")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TRACKER_ENDPOINT_DISABLE_AFTER", "five days", "write seconds (86400) or an ISO 8601 duration"),
        ("TRACKER_ENDPOINT_DISABLE_AFTER", "PT59M", "it must lie between 1 hour and 365 days"),
        ("TRACKER_DELIVERIES_KEPT", "0", "it must lie between 1 day and 3,650 days"),
    ],
)
def test_a_wrong_period_says_how_it_is_written(cli: Any, variable: str, value: str, told: str) -> None:
    said = cli("list", code=2, variables={variable: value}).stderr
    assert said.startswith(f"tracker: {variable}: is wrong")
    assert told in said


def test_where_nothing_runs_it_says_what_to_do(bare: Any) -> None:
    assert "start it with `tracker up`" in bare.alone("list", code=1).stderr


def test_an_unreachable_database_is_one_line_without_the_password(cli: Any) -> None:
    url = "postgresql://tracker:hunter2hunter2@127.0.0.1:9/tracker"
    said = cli("list", code=1, variables={"TRACKER_DATABASE_URL": url}).stderr
    assert "the database cannot be reached" in said
    assert "hunter2" not in said
    assert said.count("\n") == 1


def test_an_old_schema_says_migrate(cli: Any, empty_database_url: str) -> None:
    variables = {"TRACKER_DATABASE_URL": empty_database_url}
    assert "tracker migrate" in cli("list", code=1, variables=variables).stderr
    assert "the database schema is at 0" in cli("migrate", variables=variables).stdout
    assert cli("list", variables=variables).stdout == "no generations\n"
    assert "at nothing" in cli("migrate", "--to", "base", "--delete-everything", variables=variables).stdout


def test_no_step_back_deletes_everything_unasked(cli: Any, services: Services) -> None:
    all_steps = f"-{len(list(ScriptDirectory.from_config(configuration()).walk_revisions()))}"
    for target in ("base", all_steps):
        refused = cli("migrate", "--to", target, code=2).stderr
        assert "would delete everything in the database" in refused
        assert "--delete-everything" in refused
    services.keys.project()
    cli("migrate", "--to", all_steps, "--delete-everything")
    assert "tracker migrate" in cli("list", code=1).stderr
    assert cli.json("migrate", "--to", "head")["revision"] == head()


def test_only_the_last_step_back_is_the_dangerous_one() -> None:
    oldest = ScriptDirectory.from_config(configuration()).get_base()
    assert [empties(oldest, target) for target in ("head", "-1", "base", "0001")] == [False, True, True, False]
    assert not any(empties(None, target) for target in ("head", "-1", "base"))


def test_unknown_things_are_exit_code_1(cli: Any) -> None:
    assert cli("show", "gen_nonsense", code=1).stderr == "tracker: no generation 'gen_nonsense'\n"
    assert "no project 'elsewhere'" in cli("list", "--project", "elsewhere", code=1).stderr
    assert "no credential" in cli("credentials", "show", "nobody", code=1).stderr


def test_states_as_text_json_and_diagram(bare: Any) -> None:
    assert "completed   -> (final)" in bare("states").stdout
    assert bare.json("states")["timed_out"] == ["completed", "failed", "cancelled"]
    assert bare("states", "--mermaid").stdout.startswith("stateDiagram-v2\n    [*] --> registered\n")
