"""The compose file is valid, refuses to start without secrets, and starts the processes that `tracker up` starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tracker.settings import PROVIDERS, Settings

ROOT = Path(__file__).parents[2]
SECRETS = (
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "TRACKER_SECRET_KEYS",
    "TRACKER_BOOTSTRAP_API_KEY",
    "TRACKER_FLOWER_AUTH",
)
QUEUES = ("poll", "webhook", "download", "default")
ENDING_WHEN_TOLD = {"bell.FETCH", "bell.SWEEP_COPIES"}
"""Tasks that stop where they are on SIGTERM: seen in tests/journeys/test_drain.py and tests/services/test_downloading_room.py."""
PULSE = "BEAT_PULSE"
OURS = ("migrate", "api", "beat", "worker-poll", "worker-webhook", "worker-download", "worker-default", "flower")


def compose(
    env_file: Path = Path("/dev/null"), folder: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "docker-compose"
    command = [
        str(program),
        "-f",
        str(folder / "docker-compose.yml"),
        "--env-file",
        str(env_file),
        "config",
        "--format",
        "json",
    ]
    base = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(command, env=base | variables, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found = compose(**dict.fromkeys(SECRETS, "word"))
    assert found.returncode == 0, found.stderr
    read: dict[str, Any] = json.loads(found.stdout)["services"]
    return read


@pytest.mark.parametrize("missing", SECRETS)
def test_a_missing_secret_stops_it_with_a_message(missing: str) -> None:
    found = compose(**{name: "word" for name in SECRETS if name != missing})
    assert found.returncode != 0
    assert f"required variable {missing} is missing a value: set it to" in found.stderr


def test_it_runs_what_tracker_up_runs(services: dict[str, Any]) -> None:
    assert set(services) == {"postgres", "redis", *OURS}
    for queue in ("poll", "webhook", "download", "default"):
        command = " ".join(services[f"worker-{queue}"]["command"])
        assert f"worker -Q {queue} -n {queue}@%h" in command
        assert "--without-gossip --without-mingle" in command


def test_only_the_api_and_flower_are_published_and_only_here(services: dict[str, Any]) -> None:
    published = {name: port["host_ip"] for name, service in services.items() for port in service.get("ports", [])}
    assert published == {"api": "127.0.0.1", "flower": "127.0.0.1"}
    elsewhere = compose(**dict.fromkeys(SECRETS, "word"), TRACKER_PUBLISH="10.1.2.3")
    assert json.loads(elsewhere.stdout)["services"]["api"]["ports"][0]["host_ip"] == "10.1.2.3"


def test_every_container_is_locked_down_and_bounded(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert float(service["cpus"]) > 0, name
        assert service["pids_limit"] > 0, name
        assert service["init"], name
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text()
    assert all(services[name]["user"] == name for name in ("postgres", "redis"))


def test_each_one_that_stays_is_asked_whether_it_is_well(services: dict[str, Any]) -> None:
    staying = services.keys() - {"migrate"}
    for name in staying:
        check = services[name].get("healthcheck", {})
        assert not check.get("disable"), name
        assert check.get("test", ["NONE"])[0] in {"CMD", "CMD-SHELL"}, name
        assert {"interval", "timeout", "retries"} <= check.keys(), name
        assert _seconds(check["timeout"]) <= _seconds(check["interval"]), name
    for queue in QUEUES:
        worker = services[f"worker-{queue}"]
        assert worker["environment"]["WORKER"] == queue
        assert "inspect ping" in worker["healthcheck"]["test"][1], "over the broker, from the worker itself"
        assert '--destination "$$WORKER@$$(hostname)"' in worker["healthcheck"]["test"][1]
    assert services["beat"]["environment"][PULSE] in services["beat"]["healthcheck"]["test"][1]
    for name, path in (("api", ":8000/healthz"), ("flower", ":5555/healthcheck")):
        assert path in services[name]["healthcheck"]["test"][-1]


def test_nobody_starts_before_the_servers_are_well(services: dict[str, Any]) -> None:
    for name in OURS:
        needed = {"postgres"} if name == "migrate" else {"postgres", "redis"}
        conditions = {on: services[name]["depends_on"][on]["condition"] for on in needed}
        assert set(conditions.values()) == {"service_healthy"}, name


GIVEN = {
    "TRACKER_ARTIFACTS_URL": "s3://copies", "TRACKER_EGRESS_ALLOW": "10.0.0.0/8", "TRACKER_LUMA_API_KEY": "sk-1",
    "TRACKER_KLING_OFFICIAL_BASE_URL": "https://kling.example", "AWS_REGION": "eu-west-1", "TRACKER_WORKERS_POLL": "4",
}  # fmt: skip


def test_what_is_set_in_the_environment_or_the_named_file_reaches_the_containers(tmp_path: Path) -> None:
    file = tmp_path / "production.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in GIVEN.items()))
    secrets = dict.fromkeys(SECRETS, "word")
    for found in (compose(**secrets, **GIVEN), compose(file, **secrets)):
        environment = json.loads(found.stdout)["services"]["worker-poll"]["environment"]
        assert {name: environment[name] for name in GIVEN} == GIVEN


def test_no_file_is_read_that_was_not_named(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    (tmp_path / ".env").write_text("TRACKER_ARTIFACTS_URL=s3://production\n")
    found = compose(folder=tmp_path, **dict.fromkeys(SECRETS, "word"))
    assert found.returncode == 0, found.stderr
    assert "production" not in found.stdout


def test_every_setting_is_handed_on(services: dict[str, Any]) -> None:
    accounts = {
        f"TRACKER_{name.upper().replace('-', '_')}_{kind}" for name in PROVIDERS for kind in ("BASE_URL", "API_KEY")
    }
    fixed = {"TRACKER_FLOWER_PORT", "TRACKER_SIMULATOR_PORT"}
    fields = {f"TRACKER_{name.upper()}" for name in Settings.model_fields.keys() - {"accounts", "given"}} - fixed
    for name in OURS:
        assert fields | accounts <= services[name]["environment"].keys(), name


def test_ours_wait_for_the_schema_and_are_stopped_with_patience(services: dict[str, Any]) -> None:
    for name in set(OURS) - {"migrate"}:
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully", name
    assert services["migrate"]["restart"] == "no"
    usual = int(re.findall(r"task_time_limit=(\d+)", (ROOT / "tracker" / "bell.py").read_text())[0])
    tasks = re.findall(r"@app\.task\((.*)\)", (ROOT / "workers" / "tasks.py").read_text())
    limits = {
        re.findall(r"name=([\w.\"-]+)", task)[0]: int((re.findall(r"[ (]time_limit=(\d+)", task) or [usual])[0])
        for task in tasks
    }
    graces = {_seconds(services[f"worker-{queue}"]["stop_grace_period"]) for queue in QUEUES}
    longer = {name for name, limit in limits.items() if limit >= min(graces)}
    assert longer <= ENDING_WHEN_TOLD, f"longer than the grace of {graces} s; of {limits}"
    assert len(limits) > len(longer) > 0


def _seconds(period: str) -> int:
    minutes, seconds = re.findall(r"(?:(\d+)m)?(\d+)s", period)[0]
    return int(minutes or 0) * 60 + int(seconds)


def test_no_secret_stands_on_a_command_line(services: dict[str, Any]) -> None:
    found = compose(**{name: f"secret-{number}" for number, name in enumerate(SECRETS)})
    for name, service in json.loads(found.stdout)["services"].items():
        words = json.dumps([service.get("command"), service.get("entrypoint"), service.get("healthcheck")])
        assert "secret-" not in words, name
    assert services["flower"]["environment"]["FLOWER_BASIC_AUTH"] == "word"
