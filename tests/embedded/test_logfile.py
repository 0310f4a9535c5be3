"""Logs stay below their bound while somebody goes on writing."""

import stat
import subprocess
import sys
from pathlib import Path

from tracker.embedded.logfile import last_lines, open_log, rotate


def test_a_log_that_grew_too_large_goes_on_empty_and_keeps_one_predecessor(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "api.log"
    with open_log(path) as output:
        writer = subprocess.Popen(
            [sys.executable, "-uc", "import sys; [print(line.strip()) for line in sys.stdin]"],
            stdin=subprocess.PIPE,
            stdout=output,
            text=True,
        )
    assert writer.stdin is not None
    writer.stdin.write("first\n" * 100)
    writer.stdin.flush()
    while path.stat().st_size < 600:
        assert writer.poll() is None
    assert not rotate(path, largest=601)
    assert rotate(path, largest=600)
    writer.stdin.write("second\n")
    writer.stdin.close()
    assert writer.wait(10) == 0
    assert path.read_text() == "second\n"
    assert path.with_name("api.log.1").read_text() == "first\n" * 100
    assert [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()] == [0o600, 0o600]


def test_a_log_that_does_not_exist_is_no_trouble(tmp_path: Path) -> None:
    assert not rotate(tmp_path / "none.log")
    assert last_lines(tmp_path / "none.log") == ""


def test_the_end_of_a_log_is_short(tmp_path: Path) -> None:
    path = tmp_path / "long.log"
    path.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert last_lines(path, lines=2) == "line 9998\nline 9999"
