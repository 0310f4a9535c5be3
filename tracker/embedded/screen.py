"""What a person sees of the supervisor: progress, the summary, what happened since. Plain lines where there is no terminal.

Everything said is also kept in the supervisor's own log. Secrets are never said, save Flower's password, which is made to be typed in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tracker.embedded.logfile import Faults, open_log, rotate


class Screen:
    """One console, and one log once the home is known."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._log: Path | None = None
        self._faults = Faults(self._show)

    def keep_log(self, path: Path) -> None:
        """Write everything said from now on to this file too."""
        self._log = path

    @property
    def live(self) -> bool:
        """Whether there is a terminal that can be redrawn."""
        return self.console.is_terminal

    def say(self, sentence: str) -> None:
        """One thing that happened. Never raises because of the disk."""
        self._show(sentence)
        if self._log is not None:
            with self._faults.survived(f"{self._log} cannot be written"):
                rotate(self._log)
                with open_log(self._log) as log:
                    log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}\n".encode())

    def _show(self, sentence: str) -> None:
        with suppress(OSError):  # it may go to a file on the same full disk
            self.console.print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), "  ", sentence), soft_wrap=True)

    @contextmanager
    def step(self, sentence: str) -> Iterator[None]:
        """Something that takes a while: a spinner on a terminal, then a line with the time that it took."""
        began = time.monotonic()
        if self.live:
            with self.console.status(f"{sentence} ..."):
                yield
        else:
            yield
        self.say(f"{sentence}: {time.monotonic() - began:.1f} s")

    def summary(self, title: str, rows: Mapping[str, str], footer: str) -> None:
        """The addresses and places that a person needs."""
        if not self.live:
            self.console.print(
                title, *(f"  {name:<10} {value}" for name, value in rows.items()), footer, sep="\n", markup=False
            )
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(name, Text(value))
        table.add_row("", "")
        table.add_row("", Text(footer, style="dim"))
        self.console.print(Panel(table, title=f"[bold]{title}", border_style="cyan", padding=(1, 2), expand=False))

    def fail(self, sentence: str) -> None:
        """Why it does not go on."""
        self.console.print(Text(f"tracker: {sentence}", style="red" if self.live else ""), soft_wrap=True)
