"""Shows a demonstration while it happens: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from rich.live import Live
from rich.table import Table
from rich.text import Text

from tracker.embedded.demo import Demonstration, Example
from tracker.embedded.screen import Screen

COLOURS = {"completed": "green", "failed": "red", "processing": "yellow", "queued": "blue"}
BAR = 12
"""Characters of a full progress bar."""


class Story:
    """Follows a demonstration from the supervisor's loop: call `tell` often; it never blocks."""

    def __init__(self, demonstration: Demonstration, screen: Screen) -> None:
        self.demonstration, self._screen = demonstration, screen
        self._told: dict[str, tuple[str, bool, str]] = {}
        self._live = (
            Live(console=screen.console, get_renderable=lambda: table(demonstration.examples), refresh_per_second=4)
            if screen.live
            else None
        )
        if self._live is not None:
            self._live.start()
        self._ended = False

    def tell(self) -> bool:
        """Tell what is new; whether the story is over."""
        if self._live is None:
            for example in self.demonstration.examples:
                self._tell_change(example, self._screen.say)
        if self.demonstration.finished.is_set() and not self._ended:
            self.end()
            self._screen.say(verdict(self.demonstration))
        return self._ended

    def end(self) -> None:
        """Leave the last table standing."""
        if self._live is not None and not self._ended:
            self._live.stop()
        self._ended = True

    def _tell_change(self, example: Example, say: Callable[[str], None]) -> None:
        now = (example.state, example.webhook, example.file)
        if example.id and self._told.get(example.id) != now:
            self._told[example.id] = now
            webhook = "delivered and verified" if example.webhook else "-"
            say(
                f"{example.id}  {example.state:<10}  {example.age:5.1f} s  polls {example.polls:>2}  webhook {webhook}  file {example.file}"
            )


def verdict(demonstration: Demonstration) -> str:
    """How it ended, in one sentence."""
    if demonstration.missing:
        return f"the demonstration is incomplete: {demonstration.missing}"
    count = len(demonstration.examples)
    return (
        f"all {count} generations were tracked to completed, their webhooks delivered and verified, their files stored"
    )


def table(examples: list[Example]) -> Table:
    """The examples as they stand now."""
    found = Table(title="Generations on the simulator", title_style="bold", border_style="dim", pad_edge=False)
    found.add_column("generation", no_wrap=True, style="cyan")
    found.add_column("prompt", style="dim", overflow="ellipsis", no_wrap=True, max_width=32)
    found.add_column("state", min_width=10)
    found.add_column("progress", no_wrap=True)
    for name in ("age", "polls"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("webhook", no_wrap=True)
    found.add_column("mp4", no_wrap=True)
    for example in examples:
        state = Text(example.state, style=COLOURS.get(example.state, ""))
        webhook = Text("verified", style="green") if example.webhook else Text("-", style="dim")
        file = Text(example.file, style="green" if example.checked else "dim")
        found.add_row(
            example.id or "...",
            example.prompt,
            state,
            bar(example),
            f"{example.age:.1f} s",
            str(example.polls),
            webhook,
            file,
        )
    return found


def bar(example: Example) -> Text:
    """Its progress, where the provider tells one."""
    share = 1.0 if example.state == "completed" else example.progress
    if share is None:
        return Text("·" * BAR, style="dim")
    full = round(share * BAR)
    return Text.assemble(("━" * full, "green"), ("─" * (BAR - full), "dim"))
