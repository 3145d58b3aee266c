"""The web pages of the discovery server: a landing page, and ``/healthz`` for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from importlib.metadata import version

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

__all__ = ["make_pages"]

_LANDING = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{realm} · BoneValue discovery server</title>
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}
dt {{ font-weight: 600; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #eee; }} }}
</style>
</head>
<body>
<main>
<h1>BoneValue discovery server</h1>
<p>This server introduces programs and web pages that trust each other. They then talk directly, encrypted from
end to end; what they say to each other never passes through here.</p>
<dl>
<dt>Realm</dt><dd>{realm}</dd>
<dt>Version</dt><dd>{version}</dd>
</dl>
<p>A program connects with the address of this page, <code>ws</code> in the place of <code>http</code>.</p>
</main>
</body>
</html>
"""

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def make_pages(*, realm: str, health: Callable[[], dict[str, str]]) -> Starlette:
    """
    The web application.

    Args:
        realm: of the server.
        health: the parts of the server and how they are; ``status`` other than ``ok`` is answered with 503.
    """
    our_version = version("bonevalue")
    landing = _LANDING.format(realm=escape(realm), version=escape(our_version))

    async def show_landing(request: Request) -> Response:
        return HTMLResponse(landing, headers=_HEADERS)

    async def show_health(request: Request) -> Response:
        state = health()
        return JSONResponse({**state, "version": our_version}, status_code=200 if state["status"] == "ok" else 503)

    return Starlette(routes=[Route("/", show_landing), Route("/healthz", show_health)])
