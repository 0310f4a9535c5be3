"""Forms that only the API has: small bodies of single calls. All others are shared with the CLI and live in `services/forms`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SkipValidation

from tracker.services.artifacts import LINK_LIFE
from tracker.services.fields import Kind, Span, Time
from tracker.services.forms import Form, RegistrationForm

LARGEST_BATCH = 1000


class BatchForm(Form):
    """Each item is judged by itself, so that what is wrong with one does not hinder the others."""

    generations: Annotated[list[SkipValidation[RegistrationForm]], Field(max_length=LARGEST_BATCH)]


class DownloadForm(Form):
    """Which outputs to store; all of them without `kinds`."""

    kinds: Annotated[list[Kind], Field(min_length=1)] | None = None


class LinkForm(Form):
    """How long the link is to live: seconds or an ISO 8601 duration, at most 7 days."""

    expires_in: Span = LINK_LIFE


class RecoverForm(Form):
    """From when on to send again what failed or was missed."""

    since: Time
