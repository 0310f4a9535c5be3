"""The demonstration: a few generations on the simulator, followed through our own API to verified webhooks and stored files.

It knows the product only from outside, as a user's program does. It runs beside the supervisor in a thread of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tracker.embedded.loopback import Loopback
from tracker.embedded.receiver import Receiver
from tracker.errors import TrackerError

PROMPTS = (
    "a paper boat crossing a rain puddle",
    "slow zoom on a lighthouse at dusk",
    "a fox running through fresh snow",
    "time-lapse of a city waking up",
    "ink drops unfolding in water",
    "a hot-air balloon over rice terraces",
)
DEADLINE = 120.0
"""Seconds for everything; the simulator's generations end within about 4 to 20 s."""
LOOK_EVERY = 0.25
PATIENCE = 20.0
"""Seconds in which a server that ended is back, and what it was asked for too."""
Found = TypeVar("Found")
COMPLETED = "generation.completed"
ENDS = {"completed", "failed", "cancelled"}


@dataclass
class Example:
    """One generation of the demonstration, as far as we have seen it."""

    prompt: str
    id: str = ""
    state: str = "submitting"
    progress: float | None = None
    polls: int = 0
    began: float = 0.0
    ended: float | None = None
    webhook: bool = False
    file: str = "-"
    checked: bool = False
    wrong: str = ""

    @property
    def age(self) -> float:
        """Seconds since its registration, until its end."""
        return (self.ended or time.monotonic()) - self.began if self.began else 0.0

    @property
    def done(self) -> bool:
        """Whether there is nothing more to wait for."""
        return bool(self.wrong) or (self.state == "completed" and self.webhook and self.checked)

    @property
    def missing(self) -> str:
        """What is not as it should be, in words; empty when all is well."""
        if self.wrong:
            return self.wrong
        lacks = {
            f"is still {self.state}": self.state != "completed",
            "has no verified webhook": not self.webhook,
            "has no stored file that could be checked": not self.checked,
        }
        return " and ".join(words for words, lacking in lacks.items() if lacking)


@dataclass
class Demonstration:
    """`begin` it; `finished` is set at the end, and `missing` then says what went wrong."""

    api: Loopback
    simulator: Loopback
    seconds: float = DEADLINE
    examples: list[Example] = field(default_factory=lambda: [Example(prompt) for prompt in PROMPTS])
    finished: Event = field(default_factory=Event)
    trouble: str = ""

    @property
    def missing(self) -> str:
        """One sentence on what is not as it should be; empty when every example was tracked, delivered and stored."""
        parts = [f"{example.id or example.prompt} {example.missing}" for example in self.examples if example.missing]
        return "; ".join([self.trouble, *parts] if self.trouble else parts)

    def begin(self) -> None:
        """Run it in a thread of its own, which ends with the program."""
        Thread(target=self.run, name="demo", daemon=True).start()

    def run(self) -> None:
        """The whole of it, in the present thread. Never raises because of a server."""
        deadline = time.monotonic() + self.seconds
        try:
            secret = self._patiently(lambda: self.api.call("GET", "/v1/secret")["secret"], deadline)
            receiver = Receiver(secret)
            for example in self.examples:
                self._patiently(partial(self._register, example, receiver.url), deadline)
            while time.monotonic() < deadline and not all(example.done for example in self.examples):
                for example in self.examples:
                    if not example.done:
                        self._follow(example, receiver)
                time.sleep(LOOK_EVERY)
        except (TrackerError, OSError, KeyError, ValueError) as wrong:
            self.trouble = f"the demonstration broke off ({wrong})"
        finally:
            self.finished.set()

    @staticmethod
    def _patiently(call: Callable[[], Found], deadline: float) -> Found:
        """A server that is away is being started again: ask once more, for a while."""
        until = min(deadline, time.monotonic() + PATIENCE)
        while True:
            try:
                return call()
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(LOOK_EVERY)

    def _register(self, example: Example, webhook_url: str) -> None:
        task = self.simulator.call("POST", "/luma/generations", {"user_prompt": example.prompt})
        body = {
            "provider": "luma", "credential": "simulator", "task_id": task["id"], "webhook_url": webhook_url, "download": True,
            "metadata": {"prompt": example.prompt}, "tags": ["demo"],
        }  # fmt: skip
        generation = self.api.call("POST", "/v1/generations", body)
        example.id, example.began = generation["id"], time.monotonic()
        _observe(example, generation)

    def _follow(self, example: Example, receiver: Receiver) -> None:
        try:
            if example.state not in ENDS:
                _observe(example, self.api.call("GET", f"/v1/generations/{example.id}"))
            else:
                self._check_file(example)
        except OSError:
            return  # the API may be starting again
        example.webhook = example.webhook or COMPLETED in receiver.types(example.id)

    def _check_file(self, example: Example) -> None:
        """The stored video, checked by fetching it through the API as a user would."""
        artifacts = self.api.call("GET", f"/v1/generations/{example.id}/artifacts")["data"]
        video = next((found for found in artifacts if found["kind"] == "video"), None)
        if video is None or example.checked:
            return
        example.file = video["state"]
        if video["state"] == "failed":
            example.wrong = f"could not store its video ({video['error']})"
        if video["state"] == "stored":
            received = self.api.sha256(urlsplit(video["url"]).path)
            example.checked = received == video["sha256"]
            example.file = f"{video['size'] / 1024:.0f} kB ok" if example.checked else "differs"
            example.wrong = (
                "" if example.checked else f"has a stored file that differs ({received} instead of {video['sha256']})"
            )


def _observe(example: Example, generation: dict[str, Any]) -> None:
    example.state, example.progress, example.polls = generation["state"], generation["progress"], generation["polls"]
    if example.state in ENDS and example.ended is None:
        example.ended = time.monotonic()
        if example.state != "completed":
            example.wrong = f"ended as {example.state} ({generation['error']})"
