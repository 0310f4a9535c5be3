"""CPU and memory of whole process trees, read from /proc: what `everything counted` means here."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    seconds: float


def _processes() -> dict[int, _Process]:
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (fields := _stat(entry.name)):
            # utime, stime and those of children that ended: nothing that a tree ever used is lost with them.
            found[int(entry.name)] = _Process(int(fields[1]), sum(map(int, fields[11:15])) / TICKS)
    return found


def _stat(pid: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []  # it ended meanwhile, and its parent counts it


def tree(pid: int, processes: Mapping[int, _Process] | None = None) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for child, process in (_processes() if processes is None else processes).items():
        children[process.parent].append(child)
    found = [pid]
    for known in found:
        found += children[known]
    return found


class Meter:
    """CPU seconds of named trees since the meter was made, and how much of the machine others used."""

    def __init__(self, trees: Mapping[str, int]) -> None:
        self._trees = dict(trees)
        self._before, self._busy, self._capacity = self._read()

    def _read(self) -> tuple[dict[str, float], float, float]:
        processes = _processes()
        used = {
            name: sum(processes[one].seconds for one in tree(pid, processes) if one in processes)
            for name, pid in {**self._trees, "benchmark": os.getpid()}.items()
            if name != "benchmark"
        }
        used["benchmark"] = sum(os.times()[:2])
        fields = [int(field) / TICKS for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return used, sum(fields) - fields[3] - fields[4], sum(fields)

    def read(self) -> tuple[dict[str, float], float]:
        """CPU seconds by name, and the share (0 to 1) of the machine that foreign processes used meanwhile."""
        used, busy, capacity = self._read()
        spent = {name: used[name] - self._before[name] for name in used}
        foreign = max(0.0, busy - self._busy - sum(spent.values())) / max(capacity - self._capacity, 1e-9)
        return {name: seconds for name, seconds in spent.items() if name != "benchmark"}, foreign


def memory(pid: int) -> tuple[float, float]:
    """Proportional memory of a tree in MB: pages that several share are divided among them. What is its own, and its shared segments.

    Shared segments are PostgreSQL's buffers, above all: as large as they were made, and resident as far as they were ever used.
    """
    counted = [_memory(one) for one in tree(pid)]
    return sum(own for own, _ in counted), sum(shared for _, shared in counted)


def _memory(pid: int) -> tuple[float, float]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it has just ended
        return 0.0, 0.0
    size = {name: int(rest.split()[0]) / 1024 for name, rest in (line.split(":") for line in lines)}
    return size["Pss"] - size["Pss_Shmem"], size["Pss_Shmem"]
