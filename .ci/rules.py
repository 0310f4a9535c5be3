# ruff: noqa: INP001 - a script, not a package
"""House rules that no linter knows: the locks match pyproject.toml and name no address, and no source file is over 300 lines."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE = 300
"""Lines. A longer file has more than one subject."""
PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE)


def pins(lock: Path) -> dict[str, set[str]]:
    """Pinned versions by canonical name: several where the platforms differ."""
    found: dict[str, set[str]] = {}
    for match in PIN.finditer(lock.read_text()):
        found.setdefault(canonicalize_name(match["name"]), set()).add(match["version"])
    return found


def lock_problems(root: Path) -> Iterator[str]:
    """What the locks lack or contradict."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    runtime = [Requirement(text) for text in project["project"]["dependencies"]]
    development = [Requirement(text) for text in project["dependency-groups"]["dev"]]
    for name, wanted in {"requirements.lock": runtime, "requirements-dev.lock": runtime + development}.items():
        pinned = pins(root / name)
        if "://" in (root / name).read_text():
            yield f"{name} names an address; compile it with `make lock`"
        for requirement in wanted:
            versions = pinned.get(canonicalize_name(requirement.name), set())
            if not versions or not all(requirement.specifier.contains(version) for version in versions):
                yield f"{name} has {', '.join(sorted(versions)) or 'no pin'} for `{requirement}`; run `make lock`"
    both = pins(root / "requirements-dev.lock")
    for name, versions in pins(root / "requirements.lock").items():
        if both.get(name) != versions:
            yield f"requirements-dev.lock pins another {name} than requirements.lock; run `make lock`"


def size_problems(root: Path) -> Iterator[str]:
    """Source files that have grown too long."""
    for folder in ("tracker", "workers"):
        for path in sorted((root / folder).rglob("*.py")):
            lines = len(path.read_text().splitlines())
            if lines > LONGEST_FILE:
                yield f"{path.relative_to(root)} has {lines} lines, and {LONGEST_FILE} are the bound; divide it"


def main(root: Path = ROOT) -> int:
    """Print every problem; 1 when there is one."""
    found = [*lock_problems(root), *size_problems(root)]
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
