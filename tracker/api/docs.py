"""The description for people at /docs. Everything it loads is served from here: it works without the internet."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response

routes = APIRouter(include_in_schema=False)

VIEWER = "rapidoc-9.3.8.js"
"""RapiDoc (MIT), unchanged; its licences lie beside it. The version in the name makes it safe to cache for ever."""
PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Generation Tracker API</title>
<script type="module" src="/docs/{VIEWER}"></script>
</head>
<body>
<rapi-doc spec-url="/openapi.json" render-style="read" theme="light" primary-color="#4f46e5" load-fonts="false"
  regular-font="system-ui, sans-serif" mono-font="ui-monospace, monospace" schema-style="table" show-header="false"
  allow-spec-url-load="false" allow-spec-file-load="false" allow-server-selection="false" persist-auth="false"
  sort-tags="false" nav-item-spacing="compact" default-schema-tab="example"></rapi-doc>
</body>
</html>
"""
POLICY = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
"""The page holds a key while somebody tries calls, so nothing from elsewhere may run in it."""


@routes.get("/docs")
async def page() -> Response:
    """The page."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})


@routes.get(f"/docs/{VIEWER}")
def viewer() -> Response:
    """The one script that it loads."""
    script = resources.files("tracker.api").joinpath("static", VIEWER).read_bytes()
    return Response(
        script, headers={"Cache-Control": "public, max-age=31536000, immutable"}, media_type="text/javascript"
    )
