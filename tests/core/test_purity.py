from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import tracker.core

FILES = sorted(Path(tracker.core.__file__).parent.rglob("*.py"))


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a rule comes from"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_rules_import_only_the_standard_library_and_each_other(path: Path) -> None:
    foreign = {name for name in imported(path) if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not name.startswith("tracker.core")} == set()


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_the_rules_own_no_clock_no_dice_and_no_network(path: Path) -> None:
    assert not imported(path) & {
        "time",
        "random",
        "socket",
        "ssl",
        "http",
        "urllib.request",
        "threading",
        "os",
        "subprocess",
    }
