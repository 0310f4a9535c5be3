"""Shows a demonstration while it happens: a live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tracker.embedded.demo import Demonstration, Example
from tracker.embedded.screen import Screen

COLOURS = {"completed": "green", "failed": "red", "processing": "yellow", "queued": "blue"}
COLUMNS = {"generation": 10, "prompt": 10, "state": 10, "progress": 10, "age": 6, "polls": 5, "webhook": 8, "mp4": 8}
"""Name and least width: a column that grows while one looks makes the whole table jump."""
WIDE = 130
"""Characters of a line in which all columns find room."""
BAR = 10
"""Characters of a full progress bar."""


class Story:
    """Follows a demonstration from the supervisor's loop: call `tell` often; it never blocks."""

    def __init__(self, demonstration: Demonstration, screen: Screen) -> None:
        self.demonstration, self._screen = demonstration, screen
        self._told: dict[str, tuple[str, bool, str]] = {}
        self._live: Live | None = None
        if screen.live:
            self._live = Live(console=screen.console, get_renderable=self._table, refresh_per_second=4)
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

    def _table(self) -> Table:
        return table(self.demonstration.examples, self._screen.console.width)

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


def table(examples: list[Example], width: int = WIDE) -> Table:
    """The examples as they stand now; a narrow terminal gets the columns that matter most."""
    found = Table(title="Generations on the simulator", title_style="bold", border_style="dim", box=box.ROUNDED)
    shown = [name for name in COLUMNS if width >= WIDE or name not in {"prompt", "progress", "polls"}]
    for name in shown:
        found.add_column(name, no_wrap=True, min_width=COLUMNS[name], max_width=28 if name == "prompt" else None)
    for example in examples:
        cells = _cells(example)
        found.add_row(*(cells[name] for name in shown))
    return found


def _cells(example: Example) -> dict[str, Text]:
    return {
        "generation": Text(example.id or "...", style="cyan"),
        "prompt": Text(example.prompt, style="dim", overflow="ellipsis"),
        "progress": bar(example),
        "state": Text(example.state, style=COLOURS.get(example.state, "")),
        "age": Text(f"{example.age:.1f} s", justify="right"),
        "polls": Text(str(example.polls), justify="right"),
        "webhook": Text("verified", style="green") if example.webhook else Text("-", style="dim"),
        "mp4": Text(example.file, style="green" if example.checked else "dim"),
    }


def bar(example: Example) -> Text:
    """Its progress, where the provider tells one."""
    share = 1.0 if example.state == "completed" else example.progress
    if share is None:
        return Text("·" * BAR, style="dim")
    full = round(share * BAR)
    return Text.assemble(("━" * full, "green"), ("─" * (BAR - full), "dim"))
