"""The real supervisor and servers, with small stand-ins for our programs. Run as `python standin_tracker.py HOME`.

`worker` starts a child in its own group and one that leaves for a session of its own: neither may outlive the supervisor.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from tracker.embedded.__main__ import main
from tracker.embedded.child import Child
from tracker.embedded.installation import Programs
from tracker.embedded.roster import answers
from tracker.embedded.supervisor import Member
from tracker.settings import Settings

SERVE = "import http.server as h, os; h.HTTPServer(('127.0.0.1', int(os.environ['TRACKER_%s_PORT'])), h.SimpleHTTPRequestHandler).serve_forever()"
FAMILY = """
import ctypes, os, signal, subprocess, sys, time
if "STANDIN_BROKEN" in os.environ:
    sys.exit(os.environ["STANDIN_BROKEN"])
wish = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)
near = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "standin-near"], preexec_fn=wish)
far = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "standin-far"], start_new_session=True, preexec_fn=wish)
print("family complete", flush=True)
time.sleep(600)
"""


def program(name: str, code: str, environment: Mapping[str, str], logs: Path) -> Child:
    return Child(
        name, [sys.executable, "-c", code, f"standin-{name}"], environment=environment, log=logs / f"{name}.log", directory=Path("/"),
        orphan_signal=signal.SIGKILL, grace=3.0,
    )  # fmt: skip


def members(settings: Settings, environment: Mapping[str, str], logs: Path, runtime: Path) -> list[Member]:
    api = program("api", SERVE % "API", environment, logs)
    worker = program("worker", FAMILY, environment, logs)
    return [
        Member(api, 6, api.launch, answers("127.0.0.1", settings.api_port, "/")),
        Member(worker, 4, worker.launch, lambda: "family complete" in worker.last_words),
    ]


def flower(settings: Settings, environment: Mapping[str, str], logs: Path) -> Member:
    child = program("flower", SERVE % "FLOWER", environment, logs)
    return Member(child, 3, child.launch, answers("127.0.0.1", settings.flower_port, "/"))


STANDINS = Programs(
    lambda environment, logs: program("migrate", "print('migrated')", environment, logs), members, flower
)

if __name__ == "__main__":
    sys.exit(main(["up", "--home", sys.argv[1]], STANDINS))
