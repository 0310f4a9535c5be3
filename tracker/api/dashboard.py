"""The dashboard at `/`: one page that shows what the API tells its visitor's key. It has no session and no way of its own to anything."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from starlette.responses import Response

routes = APIRouter(include_in_schema=False)

FILES = {"dashboard.js": "text/javascript", "dashboard.css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    " img-src 'self' https: data:; media-src 'self' https:; frame-ancestors 'none'"
)
"""The page holds a key, so nothing from elsewhere may run in it; films may lie in an object store."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@routes.get("/")
def page() -> Response:
    """The page."""
    return _file("dashboard.html", "text/html")


@routes.get("/dashboard/{name}")
def file(name: str) -> Response:
    """What it loads."""
    return _file(name, FILES[name]) if name in FILES else Response(status_code=404)


def _file(name: str, media_type: str) -> Response:
    content = resources.files("tracker.api").joinpath("static", name).read_bytes()
    return Response(content, headers=HEADERS, media_type=media_type)
