"""`tracker register`: one or many task ids with the same fields."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from tracker.cli.options import AsJson, Project
from tracker.errors import TrackerError

BATCH = 1_000
"""Registrations in one transaction, as in the API."""


def add_to(app: typer.Typer) -> None:
    app.command()(register)


def register(
    *,
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Such as luma, kling, runway.")],
    task_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The provider's task ids.")],
    credential: Annotated[str | None, typer.Option(help="Which of the provider's accounts (default: default).")] = None,
    webhook_url: Annotated[str | None, typer.Option(help="Where this generation's events go.")] = None,
    event: Annotated[list[str] | None, typer.Option(help="Event for the webhook URL (repeat).")] = None,
    download: Annotated[
        list[str] | None, typer.Option(help="Keep a copy: all, or a kind such as video (repeat).")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object, at most 16 KB.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag (repeat).")] = None,
    kind: Annotated[str | None, typer.Option(help="The provider's endpoint family, such as text2video.")] = None,
    model: Annotated[str | None, typer.Option(help="Durations are learned by model.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Seconds or PT2H (default: 2 h).")] = None,
    give_up_after: Annotated[str | None, typer.Option(help="Seconds or PT48H (default: 48 h).")] = None,
    submitted_at: Annotated[str | None, typer.Option(help="When it was submitted, RFC 3339.")] = None,
    poll_price: Annotated[float | None, typer.Option(help="Seconds of waiting that one request is worth.")] = None,
    poll_longest: Annotated[float | None, typer.Option(help="Longest gap between two requests, in seconds.")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Track generations by the provider's task ids. Registering the same one again changes nothing."""
    fields: dict[str, Any] = {
        "provider": provider, "credential": credential, "webhook_url": webhook_url, "events": event or None,
        "download": _wish(download), "metadata": _object(metadata), "tags": tag or None, "kind": kind, "model": model, "timeout": timeout,
        "give_up_after": give_up_after, "submitted_at": submitted_at, "poll_price": poll_price, "poll_longest": poll_longest,
    }  # fmt: skip
    given = {name: value for name, value in fields.items() if value is not None}
    results = _registered(project, [{**given, "task_id": task_id} for task_id in task_ids])
    if as_json:
        from tracker.cli.render import print_json

        print_json({"results": [fields for _, fields in results]})
    else:
        _tell(results)
    if any(failed for failed, _ in results):
        raise typer.Exit(1)


def _registered(project: str, asked: list[dict[str, Any]]) -> list[tuple[bool, dict[str, Any]]]:
    from tracker.cli.session import opened

    with opened(project) as session:
        outcomes = []
        for start in range(0, len(asked), BATCH):
            forms = [checked(fields) for fields in asked[start : start + BATCH]]
            outcomes += session.services.registration.register_many(session.project_id, forms)
        base_url = session.settings.base_url
    return [_result(fields["task_id"], outcome, base_url) for fields, outcome in zip(asked, outcomes, strict=True)]


def checked(fields: dict[str, Any]) -> Any:
    """The form, or what is wrong with it; both are what `register_many` takes."""
    from tracker.errors import InvalidError
    from tracker.services.forms import RegistrationForm, validated

    try:
        return validated(RegistrationForm, fields)
    except InvalidError as wrong:
        return wrong


def _result(task_id: str, outcome: Any, base_url: str) -> tuple[bool, dict[str, Any]]:
    from tracker.core.events import generation_fields

    if isinstance(outcome, TrackerError):
        return True, {"task_id": task_id, "problem": {"code": outcome.code, "detail": told(outcome)}}
    status = 201 if outcome.created else 200
    return False, {"task_id": task_id, "status": status, "generation": generation_fields(outcome.generation, base_url)}


def told(error: TrackerError) -> str:
    """What is wrong with one registration, with the fields that are."""
    problems = "; ".join(f"{p.field}: {p.message}" for p in getattr(error, "problems", ()))
    stored = getattr(error, "id", None)
    return " ".join(part for part in (problems or str(error), f"(stored as {stored})" if stored else "") if part)


def _tell(results: list[tuple[bool, dict[str, Any]]]) -> None:
    for failed, fields in results:
        if failed:
            sys.stderr.write(f"tracker: {fields['task_id']}: {fields['problem']['detail']}\n")
        else:
            word = "registered" if fields["status"] == 201 else "known already"  # noqa: PLR2004 - HTTP's "created"
            sys.stdout.write(f"{fields['generation']['id']}  {word}  {fields['task_id']}\n")


def _wish(download: list[str] | None) -> Any:
    if not download:
        return None
    kinds = [kind for item in download for kind in item.split(",")]
    return True if "all" in kinds else kinds


def _object(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise typer.BadParameter(
            "it must be a JSON object, such as '{\"order\": 7}'", param_hint="--metadata"
        ) from None
