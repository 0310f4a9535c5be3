"""`tracker listen`: a receiver of webhooks for development. It verifies, prints, and passes on to a program that is being written."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracker.cli.endpoint_options import Providers, Tags
from tracker.cli.options import AsJson, Events, Project, chosen, secret_from
from tracker.errors import NotFoundError, TrackerError

if TYPE_CHECKING:
    from tracker.cli.receiving import Answer, Arrival, Receiver

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DESCRIPTION = "made by `tracker listen`, which removes it when it ends"


def add_to(app: typer.Typer) -> None:
    app.command()(listen)


def listen(
    *,
    forward: Annotated[
        str | None, typer.Option(metavar="URL", help="Post each on to this URL, and answer as it answers.")
    ] = None,
    event: Events = None,
    tag: Tags = None,
    provider: Providers = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen on 127.0.0.1; 0 is any.")] = 0,
    url: Annotated[
        str | None, typer.Option(help="How the tracker reaches the port when it runs elsewhere: a tunnel.")
    ] = None,
    secret_stdin: Annotated[
        bool, typer.Option("--secret-stdin", help="Make no endpoint; verify with this secret, from standard input.")
    ] = False,
    secret_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The same, from a file.")
    ] = None,
    secret_env: Annotated[str | None, typer.Option(metavar="VARIABLE", help="The same, from this variable.")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Receive webhooks here until Ctrl-C: each is verified and printed, and passed on where --forward says.

    For this time the project gets an endpoint, whose secret is printed: the program behind --forward verifies with it.
    With a --secret-... option there is none, and whatever is sent to --port is verified with that secret.
    """
    secret = secret_from("--secret", stdin=secret_stdin, file=secret_file, variable=secret_env)
    wish = {"url": url, "events": chosen(event), "tags": tag or [], "providers": provider or []}
    if secret is not None and any(wish.values()):
        raise typer.BadParameter(
            "--event, --tag, --provider and --url are about the endpoint, and with a secret none is made"
        )
    arrivals: SimpleQueue[Arrival | None] = SimpleQueue()
    with (
        _ending(lambda: arrivals.put(None)),
        _bound(port, forward, arrivals.put) as receiver,
        _endpoint(wish | {"url": url or receiver.url}, project) if secret is None else _given(secret) as source,
        receiver.serving(source.secret),
    ):
        _greet(receiver.url, source, forward, as_json=as_json)
        for arrival in iter(arrivals.get, None):
            _tell(arrival, as_json=as_json)


@dataclass(frozen=True)
class Source:
    """Whose webhooks come: those of an endpoint made for now, or whatever is signed with a secret that was given."""

    secret: str
    endpoint_id: str | None = None


@contextmanager
def _ending(end: Callable[[], None]) -> Iterator[None]:
    """Whatever ends us is told to the loop, which then cleans up undisturbed. What the shell ignores for us stays ignored."""
    heard = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda *_: end()) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bound(port: int, forward: str | None, report: Callable[[Arrival], None]) -> Iterator[Receiver]:
    from tracker.cli.receiving import LOOPBACK, Forward, Receiver
    from tracker.core.addresses import check_form

    if forward is not None and (wrong := check_form(forward)):
        raise typer.BadParameter(wrong, param_hint="--forward")
    try:
        receiver = Receiver(port, None if forward is None else Forward(forward), report)
    except OSError as wrong:
        raise TrackerError(
            f"nothing can listen on {LOOPBACK}:{port} ({wrong.strerror}); choose another --port"
        ) from None
    with receiver:
        if forward is not None and receiver.is_at(forward):
            raise typer.BadParameter("it leads to this receiver itself", param_hint="--forward")
        yield receiver


@contextmanager
def _given(secret: str) -> Iterator[Source]:
    from tracker.core import signing

    try:
        signing.sign(secret, "", 0, b"")
    except signing.SignatureError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="--secret") from None
    yield Source(secret)


@contextmanager
def _endpoint(wish: dict[str, Any], project: str) -> Iterator[Source]:
    """An endpoint for the time of the block."""
    from tracker.cli.session import opened
    from tracker.core import ids
    from tracker.services.forms import EndpointForm, validated

    with opened(project) as session:
        service = session.services.endpoints
        made = service.create(session.project_id, validated(EndpointForm, wish | {"description": DESCRIPTION}))
        secret = service.secret(session.project_id, made.id)
    public = ids.public("ep", made.id)
    try:
        yield Source(secret, public)
    finally:
        try:
            with opened(project) as session, suppress(NotFoundError):
                session.services.endpoints.delete(session.project_id, made.id)
        except Exception:
            sys.stderr.write(f"tracker: {public} is still there; remove it with `tracker endpoints delete {public}`\n")
            raise


def _greet(url: str, source: Source, forward: str | None, *, as_json: bool) -> None:
    from tracker.cli.render import print_json_line

    made = source.endpoint_id
    if as_json:
        secret = source.secret if made else None
        print_json_line({"listening": url, "endpoint_id": made, "secret": secret, "forward": forward})
        return
    lines = [f"listening on {url}" + (f" as {made}, until Ctrl-C" if made else ", until Ctrl-C")]
    lines += [f"its secret is {source.secret}", f"try it with `tracker endpoints test {made}`"] if made else []
    lines += [f"passing on to {forward}"] if forward else []
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


def _tell(arrival: Arrival, *, as_json: bool) -> None:
    from tracker.cli.render import event_line, print_json_line
    from tracker.core.times import rfc3339

    answer, event = arrival.answer, arrival.event
    if as_json:
        forward = answer.took is not None and {
            "status": None if answer.problem else answer.status,
            "took_ms": round(answer.took * 1000),
            "problem": answer.problem,
        }
        fields = {"received_at": rfc3339(arrival.at), "webhook_id": arrival.webhook_id, "verified": event is not None}
        print_json_line(
            fields | {"refused": arrival.refused, "status": answer.status, "forward": forward or None, "event": event}
        )
        return
    at = arrival.at.astimezone().isoformat()
    if event is None:
        line = event_line(at, {"type": "REFUSED"}, arrival.refused or "", f"-> {answer.status}")
    else:
        line = event_line(at, event, arrival.webhook_id, _outcome(answer))
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _outcome(answer: Answer) -> str:
    if answer.took is None:
        return "verified"
    if answer.problem:
        return f"NOT PASSED ON: {answer.problem} -> {answer.status}"
    return f"-> {answer.status} in {answer.took * 1000:.0f} ms"
