"""`tracker restore` into a home of the embedded servers: the database and the keys that open it come back, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.embedded.launched import ROOT
from tracker import wiring
from tracker.embedded import home as homes
from tracker.embedded.account import place
from tracker.embedded.ports import free_port, release
from tracker.embedded.postgres import Postgres
from tracker.embedded.restoring import restore
from tracker.errors import ConfigurationError, ConflictError
from tracker.services import backups
from tracker.services.forms import EndpointForm
from tracker.settings import Settings

HOOK = "http://127.0.0.1:9/hook"


@pytest.fixture
def secret(services: wiring.Services) -> str:
    project_id = services.keys.project().project_id
    made = services.endpoints.create(project_id, EndpointForm(url=HOOK))
    return services.endpoints.secret(project_id, made.id)


@pytest.fixture
def kept(settings: Settings, secret: str, tmp_path: Path) -> Path:
    """A backup of an installation on other servers, with one endpoint."""
    assert secret
    file = tmp_path / "kept.tar"
    with file.open("wb") as into:
        backups.back_up(settings.required("database_url"), settings.required("secret_keys"), into, tmp_path)
    return file


@contextmanager
def opened(home: Path, settings: Settings) -> Iterator[wiring.Services]:
    """The services on what a home holds, with the keys that it holds."""
    secrets = json.loads((home / "secrets.json").read_text())
    server = Postgres(place(home) / "postgres", port=free_port(15_700), password=secrets["postgres_password"])
    server.start()
    built = wiring.build(
        settings.changed(database_url=SecretStr(server.url), secret_keys=SecretStr(secrets["secret_keys"]))
    )
    yield built
    built.close()
    server.stop()
    release(server.port)


def test_a_new_home_gets_the_database_and_its_keys(home: Path, settings: Settings, kept: Path, secret: str) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKER_", "PG"))}
    done = subprocess.run(
        [sys.executable, "-m", "tracker.cli", "restore", str(kept), "--json"], cwd=kept.parent,
        env=plain | {"TRACKER_HOME": str(home), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["restored"] == str(kept)
    with opened(home, settings) as services:
        project_id = services.keys.project().project_id
        [endpoint], _ = services.endpoints.page(project_id, None, 10)
        assert (endpoint.url, services.endpoints.secret(project_id, endpoint.id)) == (HOOK, secret)


def test_a_home_in_use_keeps_what_it_has(home: Path, settings: Settings, kept: Path) -> None:
    plain = Settings(home=home)
    restore(plain, kept, replace=False)
    with opened(home, settings) as services:
        services.endpoints.create(services.keys.project().project_id, EndpointForm(url=HOOK + "/later"))
    with pytest.raises(ConflictError, match="is not empty"):
        restore(plain, kept, replace=False)
    other = Settings(home=home, secret_keys=SecretStr("aW1wb3NzaWJsZQ=="))
    with pytest.raises(ConfigurationError, match="not those of this backup"):
        restore(other, kept, replace=True)
    lodging = homes.move_in(plain)
    with pytest.raises(homes.AlreadyRunningError):
        restore(plain, kept, replace=True)
    lodging.leave()
    with opened(home, settings) as services:
        assert len(services.endpoints.page(services.keys.project().project_id, None, 10)[0]) == 2
    restore(plain, kept, replace=True)
    with opened(home, settings) as services:
        assert len(services.endpoints.page(services.keys.project().project_id, None, 10)[0]) == 1
