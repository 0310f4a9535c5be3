"""Hypothesis for this room: small, without deadlines (the machine may be busy), and the same examples each time in CI."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("rooms", max_examples=25, deadline=None, database=None, derandomize="CI" in os.environ)
settings.load_profile("rooms")
