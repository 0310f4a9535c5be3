"""Endpoints, credentials, keys, replays and switches from the shell; and what is never shown."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook

from tracker.core import pausing
from tracker.core.schedule import Clock
from tracker.errors import UnauthorizedError
from tracker.settings import Account
from tracker.store import db
from tracker.store.credentials import write_health
from tracker.wiring import Services

HOOK = "http://127.0.0.1:9/hook"


def test_an_endpoint_from_its_making_to_its_end(cli: Any) -> None:
    made = cli.json(
        "endpoints", "create", HOOK, "--event", "generation.completed", "--tag", "a", "--header", "X-Token: s3cret-value", "--rate-limit", "5"
    )  # fmt: skip
    assert (made["url"], made["events"], made["headers"], made["rate_limit"]) == (
        HOOK,
        ["generation.completed"],
        {"X-Token": "***"},
        5.0,
    )
    assert "s3cret-value" not in cli("endpoints", "show", made["id"]).stdout
    assert made["id"] in cli("endpoints", "list").stdout
    changed = cli.json("endpoints", "edit", made["id"], "--description", "ours", "--disable")
    assert (changed["description"], changed["enabled"], changed["events"]) == ("ours", False, ["generation.completed"])
    cli("endpoints", "delete", made["id"])
    assert cli("endpoints", "list").stdout == "no endpoints\n"
    assert "no endpoint" in cli("endpoints", "show", made["id"], code=1).stderr


def test_secrets_are_printed_alone_and_rotate(cli: Any) -> None:
    made = cli.json("endpoints", "create", HOOK)["id"]
    first, project = cli("endpoints", "secret", made).stdout.strip(), cli("endpoints", "secret").stdout.strip()
    Webhook(first)
    assert first != project
    assert (
        cli("endpoints", "rotate-secret", made).stdout.strip()
        == cli("endpoints", "secret", made).stdout.strip()
        != first
    )
    assert cli("endpoints", "rotate-secret").stdout.strip() == cli("endpoints", "secret").stdout.strip() != project


def test_an_address_that_may_not_be_reached_is_refused(cli: Any) -> None:
    assert "10.0.0.1 may not be reached" in cli("endpoints", "create", "https://10.0.0.1/hook", code=2).stderr
    assert "'Name: value'" in cli("endpoints", "create", HOOK, "--header", "nonsense", code=2).stderr


def test_a_ping_and_replays(cli: Any) -> None:
    made = cli.json("endpoints", "create", HOOK)["id"]
    delivery = cli.json("endpoints", "test", made)["delivery_id"]
    assert cli.json("replay", delivery) == {"replayed": 1}
    assert cli.json("replay", "--endpoint", made, "--since", "1h") == {"replayed": 0}
    assert cli.json("endpoints", "recover", made, "--since", "2026-01-01") == {"recovered": 0}
    assert "no delivery" in cli("replay", "dlv_nothing", code=1).stderr
    assert "is no time" in cli("replay", "--endpoint", made, "--since", "yesterday", code=2).stderr


def test_a_provider_key_comes_by_pipe_file_or_variable_and_is_never_shown(cli: Any, services: Services) -> None:
    project_id = services.keys.project().project_id

    def kept() -> str:
        stored = services.credentials.get(project_id, "relay").api_key
        assert stored is not None
        return services.vault.decrypt(stored)

    said = cli(
        "credentials",
        "set",
        "relay",
        "--provider",
        "luma",
        "--base-url",
        "http://127.0.0.1:9",
        "--api-key-stdin",
        stdin="sk-piped\n",
    )
    assert kept() == "sk-piped"
    (cli.folder / "key").write_text("sk-from-file\n")
    said = cli(
        "credentials", "set", "relay", "--api-key-file", "key", "--requests-per-second", "7", "--poll-price", "8"
    )
    assert kept() == "sk-from-file"
    cli("credentials", "set", "relay", "--api-key-env", "MY_KEY", variables={"MY_KEY": "sk-from-variable"})
    assert kept() == "sk-from-variable"
    shown = cli.json("credentials", "show", "relay")
    assert (shown["providers"], shown["requests_per_second"], shown["has_api_key"]) == (["luma"], 7.0, True)
    assert (shown["poll_price"], shown["poll_longest"]) == (8.0, None)
    assert "sk-" not in said.stdout + said.stderr + cli("credentials", "list").stdout
    assert (
        "in one way only"
        in cli("credentials", "set", "relay", "--api-key-stdin", "--api-key-file", "key", code=2).stderr
    )
    assert "MISSING is not set" in cli("credentials", "set", "relay", "--api-key-env", "MISSING", code=2).stderr


def test_a_credential_in_use_is_not_deleted_by_accident(cli: Any, registered: Callable[..., dict[str, Any]]) -> None:
    made = registered("task-1")
    assert "--force" in cli("credentials", "delete", "default", code=1).stderr
    cli("credentials", "delete", "default", "--force")
    assert cli.json("show", made["id"])["error"]["code"] == "credential_deleted"


def test_testing_and_resuming_a_credential(cli: Any) -> None:
    assert cli.json("credentials", "test", "default", code=1)["ok"] is False, "nobody listens on port 9"
    assert cli.json("credentials", "resume", "default")["state"] == "active"


def test_two_accounts_of_one_name_are_told_apart(
    cli: Any, services: Services, registered: Callable[..., dict[str, Any]]
) -> None:
    project_id = services.keys.project().project_id
    accounts = {"luma-official": Account(base_url="http://127.0.0.1:9", api_key="sk-official")}  # type: ignore[arg-type]
    services.credentials.sync_environment(project_id, services.settings.changed(accounts=accounts))
    made = cli.json("register", "luma-official", "task-2")["results"][0]["generation"]
    fine = registered("task-1")
    official = services.credentials.get(project_id, "default", "luma-official")

    def pause() -> None:
        with services.database.transaction() as tx:
            now = db.now(tx)
            write_health(tx, official.id, pausing.pause(official.health, "no credits", now), now)

    def state() -> str:
        return str(cli.json("credentials", "show", "default", "--provider", "luma-official")["state"])

    pause()
    assert cli.json("credentials", "show", "default")["providers"] == ["luma"]
    assert "is paused (no credits)" in cli.json("show", made["id"], "--why")["why"][0]
    assert not any("paused" in reason for reason in cli.json("show", fine["id"], "--why")["why"])
    assert cli.json("credentials", "resume", "default", "--provider", "luma")["providers"] == ["luma"]
    assert state() == "paused"
    assert cli.json("credentials", "resume", "default")["providers"] == ["luma-official"]
    assert state() == "active"
    pause()
    cli("credentials", "resume", "default", "--provider", "luma-official")
    assert state() == "active"
    assert "default of kling" in cli("credentials", "resume", "default", "--provider", "kling", code=1).stderr


def test_a_key_is_shown_once_and_makes_its_project(cli: Any, services: Services) -> None:
    made = cli("keys", "create", "--project", "films", "--name", "studio", "--scope", "read", "--expires", "30d")
    token = made.stdout.strip()
    caller = services.keys.authenticate(token)
    assert (caller.project, caller.scopes) == ("films", frozenset({"read"}))
    [key] = cli.json("keys", "list", "--project", "films")["data"]
    assert token not in str(key)
    assert key["expires_at"] > key["created_at"]
    assert token not in cli("keys", "list").stdout
    cli("keys", "revoke", key["id"], "--project", "films")
    with pytest.raises(UnauthorizedError):
        services.keys.authenticate(token)
    assert "revoked" in cli("keys", "list", "--project", "films").stdout


def test_a_wrong_scope_is_named(cli: Any) -> None:
    assert "scopes" in cli("keys", "create", "--scope", "owner", code=2).stderr


def test_the_switches(cli: Any, services: Services) -> None:
    assert "`tracker resume webhooks`" in cli("pause", "webhooks", "--reason", "receiver moves house").stdout
    assert services.health.stopped() == {"webhooks": "receiver moves house"}
    assert cli.json("resume", "webhooks") == {"stopped": {}}
    assert cli("resume", "webhooks").stdout == "webhooks were not paused\n"


def test_clocks_appear_with_the_first_generation(cli: Any, registered: Callable[..., dict[str, Any]]) -> None:
    assert "no clocks yet" in cli("clocks").stdout
    registered("task-1", "--model", "ray-2")
    [clock] = cli.json("clocks")["data"]
    assert (clock["provider"], clock["subject"], clock["count"]) == ("luma", "ray-2", 0)
    assert 1 < clock["gap_at_0_s"] < clock["gap_at_120_s"] < 60


def test_clocks_show_the_law_that_was_learned(
    cli: Any, registered: Callable[..., dict[str, Any]], services: Services
) -> None:
    registered("task-1", "--model", "ray-2")
    clock, dice = Clock(), random.Random(7)
    for _ in range(300):
        end, before = dice.gauss(90, 12), 0.0
        while before < end:
            clock.observe(before, before + 6, done=before + 6 >= end)
            before += 6
    with services.database.transaction() as tx:
        tx.execute(
            text("UPDATE clocks SET events = :events, exposure = :exposure, tasks = 300"),
            {"events": clock.events, "exposure": clock.exposure},
        )
    [shown] = cli.json("clocks")["data"]
    assert shown["mean_seconds"] == pytest.approx(90, abs=8)
    assert shown["half_by_seconds"] == pytest.approx(90, abs=5)
    assert shown["nine_tenths_by_seconds"] == pytest.approx(106, abs=8)
    assert shown["gain_limit"] == pytest.approx(clock.gain_limit(), abs=0.01)
    bars = shown["histogram"]
    assert [bar["from"] for bar in bars] == [0, *(bar["to"] for bar in bars[:-1])], "without a hole"
    assert sum(bar["ends"] for bar in bars) + shown["later"] == pytest.approx(1, abs=0.001)
    assert max(bars, key=lambda bar: bar["ends"])["from"] in {80, 90}
    early, ripe = (next(bar for bar in bars if bar["to"] > age) for age in (20, 85))
    assert early["expected_remaining"] == pytest.approx(70, abs=12)
    assert ripe["expected_remaining"] < 30
    assert early["gap"] > 5 * ripe["gap"]
    [line] = [line for line in cli("clocks").stdout.splitlines() if "ray-2" in line]
    assert "█" in line
    assert line.endswith(f"{shown['gain_limit']:.1f}x")
    full = cli("clocks", "luma").stdout
    assert "half by 9" in full
    assert max(full.splitlines(), key=lambda line: line.count("█")).split()[0] in {"80-90", "90-100"}
    assert max(map(len, full.splitlines())) <= 80
    assert "no clocks yet" in cli("clocks", "kling").stdout
