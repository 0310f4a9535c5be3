"""Writes the newest result of every benchmark as Markdown.

`python -m bench.report` prints it; with `--into FILE` it replaces what stands between the marks there about the same benchmarks, and
leaves those that were not run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench import kit

BEGIN, END = "<!-- figures: python -m bench.report -->", "<!-- end of figures -->"
ORDER = ("polling", "schedule", "budget", "fleet", "claim", "webhooks", "downloads", "registration")


def newest() -> list[dict[str, Any]]:
    """The last result of each benchmark, in the order of reading."""
    found: dict[str, dict[str, Any]] = {}
    for path in kit.RESULTS.glob("*.json"):
        result = json.loads(path.read_text())
        name = result.get("benchmark")
        if name and (name not in found or result["at"] > found[name]["at"]):
            found[name] = result
    known = {name: number for number, name in enumerate(ORDER)}
    return sorted(found.values(), key=lambda result: (known.get(result["benchmark"], len(ORDER)), result["benchmark"]))


def merged(there: str, fresh: dict[str, str]) -> str:
    """The sections of `there`, one for each benchmark, with the `fresh` ones in their places, in the order of reading."""
    parts = [f"### {part.strip()}" for part in f"\n{there.strip()}".split("\n### ")[1:]]
    sections = {part.split()[1]: part for part in parts} | {name: text.strip() for name, text in fresh.items()}
    known = {name: number for number, name in enumerate(ORDER)}
    return "\n\n".join(
        sections[name] for name in sorted(sections, key=lambda name: (known.get(name, len(ORDER)), name))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="a Markdown file that holds the two marks")
    into = parser.parse_args().into
    fresh = {result["benchmark"]: kit.as_text(result) for result in newest()}
    if into is None:
        print("\n".join(fresh.values()))
        return
    before, _, rest = into.read_text().partition(BEGIN)
    there, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{into} does not hold the marks {BEGIN} and {END}")
    into.write_text(f"{before}{BEGIN}\n\n{merged(there, fresh)}\n\n{END}{after}")


if __name__ == "__main__":
    main()
