"""From a request to a reply: counting, whole outages, random faults, the bearer, then the path's own function."""

from __future__ import annotations

from collections.abc import Callable

from tracker.simulator import control, files, luma
from tracker.simulator.messages import BadRequestError, Reply, Request
from tracker.simulator.misbehaviour import Scope, relay_error, unauthorized
from tracker.simulator.world import World

Route = tuple[str, Callable[[World, Request], Reply]]


def answer(world: World, request: Request) -> Reply:
    """The reply to any request; never raises on a caller's mistake."""
    try:
        if request.path.startswith("/simulator/"):
            return control.answer(world, request)
        return _relayed(world, request)
    except BadRequestError as error:
        return relay_error("invalid_request", 400, str(error))


def pattern(request: Request) -> str:
    """The path as it is counted: without ids."""
    return f"{request.method} {_route(request)[0]}"


def _relayed(world: World, request: Request) -> Reply:
    down = world.outage()
    if down is not None:
        return world.spoilt(down, Reply(200))
    canned = world.answers.get(request.path)
    if canned is not None:
        return canned
    _, call = _route(request)
    if call is files.serve:
        return call(world, request)
    if not world.permits(request):
        return unauthorized()
    drawn = world.drawn(Scope.ANSWER)
    good = call(world, request)
    return good if drawn is None else world.spoilt(drawn, good)


def _route(request: Request) -> Route:
    method, path = request.method, request.path
    if path.startswith("/luma/generations/") and method == "GET":
        asks_link = path.endswith("/download_video_url")
        return (
            ("/luma/generations/{id}/download_video_url", luma.download_link)
            if asks_link
            else ("/luma/generations/{id}", luma.query)
        )
    if path.startswith("/files/") and method in {"GET", "HEAD"}:
        return (
            f"/files/{{id}}/{path.rpartition('/')[2] if path.rpartition('/')[2] in files.NAMES else '...'}",
            files.serve,
        )
    return _EXACT.get((method, path), _NOWHERE)


def _nowhere(_: World, request: Request) -> Reply:
    return luma.unknown_path(request)


_NOWHERE: Route = ("(unknown)", _nowhere)
_EXACT: dict[tuple[str, str], Route] = {
    ("POST", "/luma/generations"): ("/luma/generations", luma.submit),
    ("POST", "/luma/tasks"): ("/luma/tasks", luma.batch),
    ("GET", "/elsewhere"): ("/elsewhere", _nowhere),  # where the misbehaviour `redirect` points: counted if followed
}
