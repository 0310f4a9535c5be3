"""What the benchmarks share: an installation of their own on embedded servers with durable settings, a table, and a JSON note."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from pydantic import SecretStr

from tracker import __version__, wiring
from tracker.embedded.ports import free_port, release
from tracker.embedded.postgres import Postgres
from tracker.embedded.valkey import Valkey
from tracker.settings import Settings
from tracker.store.migrations import migrate

RESULTS = Path(__file__).parent / "results"


@contextmanager
def installation() -> Iterator[wiring.Services]:
    """All services on fresh servers, removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        database = Postgres(home / "postgres", port=free_port(15932), password="bench")
        broker = Valkey(home / "valkey", port=free_port(16932), password="bench")
        try:
            database.start()
            broker.start()
            migrate(database.url)
            services = wiring.build(
                Settings(
                    home=home / "home",
                    database_url=SecretStr(database.url),
                    redis_url=SecretStr(broker.url),
                    secret_keys=SecretStr(Fernet.generate_key().decode()),
                    bootstrap_api_key=SecretStr("trk_" + "b" * 40),
                )
            )
            services.keys.ensure_bootstrap("trk_" + "b" * 40)
            yield services
            services.close()
        finally:
            broker.stop()
            database.stop()
            database.remove()
            release(database.port)
            release(broker.port)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns."""
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["-" * width for width in widths], *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def note(name: str, figures: dict[str, Any]) -> None:
    """Keep the figures with what they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    about = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": __version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(about | figures, indent=2) + "\n")
