"""`tracker providers ...`: which providers can be asked, and whether a file that describes one reads its answers as its author means."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracker.cli.options import AsJson

if TYPE_CHECKING:
    from tracker.core.observation import Observation
    from tracker.providers.described import Described

SAMPLE = "TASK_ID"
SHOWN_KEY = "YOUR_KEY"

group = typer.Typer(
    name="providers", help="Providers: the built-in ones, and those that files describe.", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    app.add_typer(group)


@group.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """All that can be asked, with the address of one task."""
    from tracker.cli.render import print_list
    from tracker.providers import BUILT_IN, REGISTRY, take_in
    from tracker.providers.base import Account, Subject
    from tracker.settings import load

    take_in(load().home)
    rows = []
    for name, provider in REGISTRY.items():
        base_url, kind = provider.default_base_url, next(iter(provider.kinds), None)
        asked = provider.question(Account(base_url, None), Subject(SAMPLE, kind))
        path = asked.url.removeprefix(base_url).replace(SAMPLE, "{id}")
        rows.append(
            {
                "provider": name,
                "base_url": base_url,
                "asked": f"{asked.method} {path}",
                "kinds": list(provider.kinds),
                "many": provider.batch_size or None,
                "from": "built in" if name in BUILT_IN else "file",
            }
        )
    columns = {
        "provider": "provider",
        "base_url": "base URL unless told",
        "asked": "one task",
        "many": "many",
        "from": "from",
    }
    print_list(rows, as_json=as_json, columns=columns, empty="none")


@group.command()
def check(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A description, such as acme.toml.")],
    answer: Annotated[
        Path | None, typer.Option(help="An answer of the provider (JSON): shown as the tracker would read it.")
    ] = None,
    task_id: Annotated[str, typer.Option(help="The task that the answer is about.")] = SAMPLE,
    kind: Annotated[str | None, typer.Option(help="The kind that it was submitted as.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read a description, show what would be asked, and what an answer would be read as. Sends nothing.

    Exit code 1 when the answer shows no state.
    """
    from tracker.cli.render import print_json
    from tracker.core.observation import Problem
    from tracker.providers.base import Account, Subject
    from tracker.providers.files import described

    provider, subject = described(file), Subject(task_id, kind)
    asked = provider.question(Account(provider.default_base_url, SHOWN_KEY), subject)
    told: dict[str, Any] = {
        "provider": provider.name,
        "asks": {"method": asked.method, "url": asked.url, "headers": dict(asked.headers)},
    }
    seen = _seen(provider, subject, answer) if answer else None
    if seen is not None:
        told["reads"] = _told(seen)
    if as_json:
        print_json(told)
    else:
        _print(told)
    if isinstance(seen, Problem):
        raise typer.Exit(1)


def _seen(provider: Described, subject: Any, answer: Path) -> Observation:
    from datetime import UTC, datetime

    from tracker.providers.base import Response

    try:
        body = answer.read_bytes()
    except OSError as wrong:
        raise typer.BadParameter(f"{answer}: {wrong.strerror}", param_hint="--answer") from None
    at = datetime.fromtimestamp(0, UTC)  # only a Retry-After is counted from when it came, and a file has none
    return provider.read(subject, Response(200, {}, body, at))


def _told(seen: Observation) -> dict[str, Any]:
    from dataclasses import asdict

    from tracker.core.observation import Problem

    if isinstance(seen, Problem):
        return {"problem": {"code": seen.code.value, "message": seen.message}}
    return {
        "state": seen.state.value,
        "provider_status": seen.status,
        "progress": seen.progress,
        "started_at": seen.started_at,
        "outputs": [{name: value for name, value in asdict(one).items() if value is not None} for one in seen.outputs],
        "error": None
        if seen.error is None
        else {"code": seen.error.code.value, "message": seen.error.message, "provider_code": seen.error.provider_code},
    }


def _print(told: dict[str, Any]) -> None:
    asks = told["asks"]
    lines = [f"{told['provider']} asks", f"  {asks['method']} {asks['url']}"]
    lines += [f"  {name}: {value}" for name, value in asks["headers"].items()]
    if "reads" in told:
        lines.append("and reads")
        for name, value in told["reads"].items():
            shown = value if isinstance(value, list) else [value]
            lines += [f"  {name}: {_line(one)}" for one in shown or ["-"]]
    sys.stdout.write("\n".join(lines) + "\n")


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name}={part}" for name, part in value.items() if part is not None)
    return "-" if value is None else str(value)
