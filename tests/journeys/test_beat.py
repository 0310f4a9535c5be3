"""Beat shows that it rings: what the health check of its container looks at."""

from __future__ import annotations

from pathlib import Path

from tracker.settings import Settings

from .conftest import Workers, until


def test_beat_touches_its_pulse_while_the_broker_takes_its_rings(settings: Settings, tmp_path: Path) -> None:
    beat = Workers(settings, tmp_path)
    pulse = beat.pulse("beat")
    beat.start("beat")
    try:
        until(pulse.exists, 30, "the first ring")
        pulse.unlink()
        until(pulse.exists, 10, "the next one")
        beat.kill("beat")
        beat.environment["TRACKER_BROKER_URL"] = "redis://127.0.0.1:9/0"
        pulse.unlink()
        beat.start("beat")
        until(lambda: "refused" in (tmp_path / "beat.log").read_text(), 30, "it does not reach its broker")
        assert not pulse.exists()
    finally:
        beat.kill("beat")
