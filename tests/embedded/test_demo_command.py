"""`make demo`, as a newcomer runs it: the real servers, API, workers and simulator, from nothing to verified webhooks and stored files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracker.embedded.fresh import remove
from tracker.embedded.roster import PROJECT
from tracker.settings import Settings


@pytest.mark.timeout(240)
def test_the_demonstration_ends_by_itself_and_everything_it_promised_is_there(tmp_path: Path) -> None:
    # What is configured must not matter to it: neither a provider nor a server of the user's.
    strange = {
        "TRACKER_LUMA_API_KEY": "sk-unused",
        "TRACKER_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "TRACKER_API_PORT": "9",
    }
    home = tmp_path / "demo"
    ended = subprocess.run(
        [sys.executable, "-m", "tracker.embedded", "demo", "--home", home], cwd=PROJECT, env={**os.environ, **strange},
        capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip
    try:
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert (
            "all 6 generations were tracked to completed, their webhooks delivered and verified, their files stored"
            in ended.stdout
        )
        assert len(list((home / "artifacts").rglob("video-0.mp4"))) == 6
        assert json.loads((home / "state.json").read_text())["pid"] is None
        assert "has ended" not in ended.stdout
        key = (home / "api-key").read_text().strip()
        assert not [path.name for path in (home / "logs").iterdir() if key in path.read_text(errors="replace")]
    finally:
        remove(Settings(home=home))
