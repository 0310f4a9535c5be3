"""A provider that a file describes, from registration to its end over real sockets, and when its file is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from tracker import providers, wiring
from tracker.embedded.environment import complete
from tracker.errors import InvalidError
from tracker.services.forms import CredentialForm
from tracker.settings import Settings, load

from .conftest import Place, Relay

FILE = """
base_url = "https://api.acme.example"
path = "/acme/jobs/{id}"
authorization = "Token {key}"
[answer]
id = "job"
status = "phase"
progress = "done"
[states]
processing = ["baking"]
completed = ["baked"]
[[outputs]]
each = "files"
"""
FILM = "https://files.example/film.mp4"


@pytest.fixture
def acme(place: Place, tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "described" / "providers"
    folder.mkdir(parents=True)
    (folder / "acme.toml").write_text(FILE)
    providers.take_in(folder.parent)
    form = CredentialForm(providers=["acme", "luma"], base_url=place.relay.url, api_key=SecretStr("k"))
    place.services.credentials.put(place.project, "both", form)
    yield folder.parent
    providers.take_in(tmp_path / "nothing")


def says(relay: Relay, phase: str, **more: object) -> None:
    relay.call("answers", {"path": "/acme/jobs/t-1", "body": json.dumps({"job": "t-1", "phase": phase, **more})})


def test_it_is_tracked_like_any_other(place: Place, relay: Relay, acme: Path) -> None:
    says(relay, "baking", done=40)
    g = place.register("t-1", provider="acme", credential="both")
    place.poll()
    found = place.get(g)
    assert (found.state, found.provider_status, found.progress) == ("processing", "baking", 0.4)
    says(relay, "baked", files=[FILM])
    place.run(120)
    found = place.get(g)
    assert (found.state, [(o.kind, o.url) for o in found.outputs]) == ("completed", [("video", FILM)])
    assert place.types(g) == ["registered", "processing", "completed"]


def test_without_its_file_it_waits_and_nobody_with_it(place: Place, relay: Relay, acme: Path) -> None:
    says(relay, "baking")
    g = place.register("t-1", provider="acme", credential="both")
    luma = place.register(relay.create(queue=0, duration=3000), credential="both")
    providers.take_in(acme / "nothing")
    place.poll()
    found = place.get(g)
    assert found.last_problem is not None
    assert (found.state, found.last_problem.code) == ("registered", "not_described")
    assert found.last_problem.message == "no file described 'acme' when this worker started"
    assert place.get(luma).state == "processing"
    with pytest.raises(InvalidError, match="'acme' is not a provider"):
        place.services.credentials.test(place.project, "both", "acme")
    elsewhere = CredentialForm(base_url=relay.url.replace("127.0.0.1", "localhost"))
    place.services.credentials.put(place.project, "both", elsewhere, force=True)  # it need not know what it serves
    providers.take_in(acme)
    place.run(660)
    assert place.get(g).state == "processing"


@pytest.mark.parametrize(
    "program", ["import workers.app", "from tracker.api.__main__ import main; raise SystemExit(main())"]
)
def test_a_process_does_not_start_with_a_wrong_file(settings: Settings, acme: Path, program: str) -> None:
    (acme / "providers" / "acme.toml").write_text(FILE.replace("phase", "phase..x"))
    environment = complete(settings.changed(home=acme), dict(os.environ), own_database=False, simulator_url=None)
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "acme.toml: answer.status: is wrong" in ended.stderr.splitlines()[-1]


def test_processes_that_come_later_know_what_their_parent_knew(settings: Settings, acme: Path) -> None:
    """Celery replaces its processes after a while; the files may have changed by then, and be half written."""
    found = load({"TRACKER_HOME": str(acme), "TRACKER_ACME_API_KEY": "k"}, None)
    (acme / "providers" / "acme.toml").write_text("half wri")
    built = wiring.build(settings.changed(accounts=found.accounts, home=acme))
    built.close()
    assert providers.get("acme").default_base_url == "https://api.acme.example"
