"""`tracker doctor`: what is wrong, and the mend."""

from __future__ import annotations

import sys
from typing import Any

import typer

from tracker.cli.checks import everything
from tracker.cli.finding import Finding
from tracker.cli.options import AsJson

MARKS = {"ok": ("ok", "green"), "warning": ("look", "yellow"), "wrong": ("WRONG", "red")}


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(*, as_json: AsJson = False) -> None:
    """Look at everything this installation needs; exit 1 when something is wrong."""
    findings = list(everything())
    if as_json:
        from tracker.cli.render import print_json

        print_json({"findings": [vars(finding) for finding in findings]})
    else:
        _tell(findings)
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(1)


def _tell(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from tracker.cli.render import console

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        word, style = MARKS[finding.verdict]
        sentence: Any = Text(finding.said)
        if finding.mend:
            sentence.append(f"\n{finding.mend}", style="bold")
        grid.add_row(Text(word, style=style), finding.subject, sentence)
    console().print(grid)
    wrong = sum(finding.verdict == "wrong" for finding in findings)
    sys.stdout.write(f"\n{'nothing is wrong' if not wrong else f'{wrong} of {len(findings)} are wrong'}\n")
