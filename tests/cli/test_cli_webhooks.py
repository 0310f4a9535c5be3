"""Endpoints in every detail, and deliveries with every attempt, from the shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tracker.services.forms import EndpointForm
from tracker.wiring import Services

HOOK = "http://127.0.0.1:9/hook"
Register = Callable[..., dict[str, Any]]


def sent_along(services: Services) -> dict[str, str]:
    """The headers as they are stored: their values are shown nowhere."""
    project = services.keys.project().project_id
    [found], _ = services.endpoints.page(project, None, 10)
    return dict(json.loads(services.vault.decrypt(found.headers))) if found.headers else {}


def test_a_schedule_is_given_as_people_say_it(cli: Any) -> None:
    made = cli.json("endpoints", "create", HOOK, "--schedule", "0,5s,5m,2h")
    assert made["schedule"] == [0, 5, 300, 7200]
    assert cli.json("endpoints", "edit", made["id"], "--schedule", "1")["schedule"] == [1]
    assert "no span" in cli("endpoints", "edit", made["id"], "--schedule", "0,soon", code=2).stderr
    assert "schedule" in cli("endpoints", "edit", made["id"], "--schedule", "30d", code=2).stderr


def test_everything_that_was_set_can_be_cleared(cli: Any, services: Services) -> None:
    made = cli.json(
        "endpoints", "create", HOOK, "--event", "generation.completed", "--tag", "a", "--provider", "luma", "--header", "X-One: 1",
        "--description", "ours", "--rate-limit", "5", "--schedule", "0,5",
    )  # fmt: skip
    changed = cli.json("endpoints", "edit", made["id"], "--clear", "events", "--clear", "headers")
    assert (changed["events"], changed["headers"], changed["tags"], changed["rate_limit"]) == ([], {}, ["a"], 5)
    assert sent_along(services) == {}
    rest = ("tags", "providers", "description", "rate-limit", "schedule", "ca")
    cleared = cli.json("endpoints", "edit", made["id"], *(word for name in rest for word in ("--clear", name)))
    empty: dict[str, Any] = {
        "tags": [],
        "providers": [],
        "description": "",
        "rate_limit": None,
        "schedule": None,
        "ca": None,
    }
    assert {name: cleared[name] for name in empty} == empty
    assert cleared["url"] == HOOK
    both = cli("endpoints", "edit", made["id"], "--tag", "b", "--clear", "tags", code=2).stderr
    assert "both given and cleared" in both
    assert cli("endpoints", "edit", made["id"], "--clear", "url", code=2).stderr.count("\n") == 1


def test_secret_headers_need_not_stand_on_the_command_line(cli: Any, services: Services) -> None:
    (cli.folder / "headers").write_text("Authorization: Bearer from-file\n\nX-Team: films\n")
    made = cli.json("endpoints", "create", HOOK, "--header-file", "headers")
    assert sent_along(services) == {"Authorization": "Bearer from-file", "X-Team": "films"}
    assert made["headers"] == {"Authorization": "***", "X-Team": "***"}
    cli("endpoints", "edit", made["id"], "--header-stdin", stdin="X-Token: piped: with a colon\n")
    assert sent_along(services) == {"X-Token": "piped: with a colon"}
    options = ("--header-env", "X-Token=HOOK_TOKEN", "--header", "X-Team: music")
    cli("endpoints", "edit", made["id"], *options, variables={"HOOK_TOKEN": "from-variable"})
    assert sent_along(services) == {"X-Token": "from-variable", "X-Team": "music"}
    assert "MISSING is not set" in cli("endpoints", "edit", made["id"], "--header-env", "X=MISSING", code=2).stderr
    wrong = cli("endpoints", "edit", made["id"], "--header-stdin", stdin="s3cret without a name\n", code=2).stderr
    assert "'Name: value'" in wrong
    assert "s3cret" not in wrong


def test_all_endpoints_are_listed(cli: Any, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracker.cli.endpoints.PAGE", 2)
    project = services.keys.project().project_id
    for n in range(5):
        services.endpoints.create(project, EndpointForm(url=f"{HOOK}/{n}"))
    assert [e["url"] for e in cli.json("endpoints", "list")["data"]] == [f"{HOOK}/{n}" for n in (4, 3, 2, 1, 0)]


def test_deliveries_are_listed_and_shown_with_every_attempt(cli: Any, services: Services, registered: Register) -> None:
    endpoint, other = (cli.json("endpoints", "create", f"{HOOK}/{n}")["id"] for n in (1, 2))
    generation = registered("task-1")["id"]
    cli("cancel", generation)
    services.delivery.send_due()
    both = cli.json("deliveries", "list")
    assert (len(both["data"]), both["next_cursor"]) == (2, None)
    assert {d["state"] for d in both["data"]} == {"pending"}
    [mine] = cli.json("deliveries", "list", "--endpoint", endpoint, "--generation", generation)["data"]
    assert (mine["type"], mine["generation_id"], mine["url"]) == ("generation.cancelled", generation, f"{HOOK}/1")
    assert cli("deliveries", "list", "--state", "failed").stdout == "no deliveries\n"
    first = cli.json("deliveries", "list", "--limit", "1")
    rest = cli.json("deliveries", "list", "--before", first["next_cursor"])
    assert first["data"] + rest["data"] == both["data"]
    assert f"--before {first['next_cursor']}" in cli("deliveries", "list", "--limit", "1").stdout
    cli("deliveries", "redeliver", mine["id"])
    services.delivery.send_due()
    shown = cli.json("deliveries", "show", mine["id"])
    assert [(a["number"], a["error_class"], a["status_code"]) for a in shown["attempts"]] == [
        (1, "connect", None),
        (2, "connect", None),
    ]
    assert shown.keys() == mine.keys() | {"attempts"}
    said = cli("deliveries", "show", mine["id"]).stdout
    assert said.count("connect") >= 2
    [theirs] = cli.json("deliveries", "list", "--endpoint", other)["data"]
    mixed = cli("deliveries", "redeliver", "dlv_nothing", theirs["id"], code=1)
    assert "no delivery 'dlv_nothing'" in mixed.stderr
    assert mixed.stdout == f"{theirs['id']} is sent again to {HOOK}/2\n"
    assert cli.json("deliveries", "redeliver", theirs["id"])["data"][0]["id"] == theirs["id"]


def test_asking_wrongly_for_deliveries(cli: Any) -> None:
    assert "states are pending" in cli("deliveries", "list", "--state", "lost", code=2).stderr
    assert "no endpoint" in cli("deliveries", "list", "--endpoint", "ep_x", code=1).stderr
    assert "no delivery" in cli("deliveries", "show", "dlv_x", code=1).stderr


def test_paused_webhooks_wait_and_go_on_when_they_may(cli: Any, services: Services) -> None:
    assert cli.json("pause", "webhooks", "--reason", "moving house") == {"stopped": {"webhooks": "moving house"}}
    endpoint = cli.json("endpoints", "create", HOOK)["id"]
    delivery = cli.json("endpoints", "test", endpoint)["delivery_id"]
    services.delivery.send_due()
    assert cli.json("deliveries", "show", delivery)["attempts"] == []
    assert "no attempt yet" in cli("deliveries", "show", delivery).stdout
    assert cli.json("resume", "webhooks") == {"stopped": {}}
    services.delivery.send_due()
    assert len(cli.json("deliveries", "show", delivery)["attempts"]) == 1


def test_a_replay_to_a_disabled_endpoint_is_refused(cli: Any) -> None:
    endpoint = cli.json("endpoints", "create", HOOK)["id"]
    cli("endpoints", "edit", endpoint, "--disable")
    for command in (("replay", "--endpoint", endpoint), ("endpoints", "recover", endpoint)):
        assert "disabled" in cli(*command, "--since", "1h", code=1).stderr
    assert "no endpoint" in cli("replay", "--endpoint", "ep_x", "--since", "1h", code=1).stderr
    assert "--endpoint with --since" in cli("replay", "--endpoint", endpoint, code=2).stderr


def test_events_are_chosen_by_type(cli: Any, registered: Register) -> None:
    cli("cancel", registered("task-1")["id"])
    following = cli.starts("events", "--json", "--after", "start", "--events", "generation.failed,generation.cancelled")
    assert following.stdout is not None
    event = json.loads(following.stdout.readline())
    following.terminate()
    following.communicate(timeout=20)
    assert (event["type"], event["data"]["task_id"]) == ("generation.cancelled", "task-1")
    assert event["id"].startswith("evt_")
    assert "'no.such' is no event" in cli("events", "--event", "no.such", code=2).stderr
