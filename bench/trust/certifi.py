"""Stands in for certifi in the workers of a TLS benchmark: the benchmark's own authority is the only one that is trusted."""

import os
from pathlib import Path


def where() -> str:
    return os.environ["BENCH_CA"]


def contents() -> str:
    return Path(where()).read_text()
