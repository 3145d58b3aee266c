"""
The web pages of the discovery server: a landing page, the browser library, the console, one's own pages if there are
any, and two small answers: ``/healthz`` for whoever watches the server, ``/origin`` for a page that it turns away.

What is served of the library and the console stands in the folder ``browser`` beside this file, as ``make browser``
built it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bonevalue.errors import OriginRefused
from bonevalue_server.origins import Origins
from bonevalue_server.static_files import Files

__all__ = ["make_pages"]

_LANDING = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{realm} · BoneValue discovery server</title>
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }}
dt {{ font-weight: 600; }}
pre {{ overflow-x: auto; padding: .8rem; border: 1px solid #8888; border-radius: .4rem; font-size: .85rem; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #eee; }} a {{ color: #7cc4ff; }} }}
</style>
</head>
<body>
<main>
<h1>BoneValue discovery server</h1>
<p>This server introduces programs and web pages that trust each other. They then talk directly, encrypted from
end to end; what they say to each other never passes through here.</p>
<p><a href="console/">Open the console</a> to sign in, see who is online, and call their modules.</p>
<dl>
<dt>Realm</dt><dd>{realm}</dd>
<dt>Version</dt><dd>{version}</dd>
</dl>
<p>A program connects with the address of this page, <code>ws</code> in the place of <code>http</code>. A web page loads
the library, and the browser makes sure that it is this one:</p>
<pre>&lt;script src="{library}"
  integrity="{integrity}"
  crossorigin="anonymous"&gt;&lt;/script&gt;</pre>
</main>
</body>
</html>
"""

#: What every answer has, unless it says otherwise. What a file is, is not for the browser to guess.
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache"}
_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}
#: For pages of any origin: it is public, and the same for everybody.
_FOR_ALL = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
_LANDING_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: The console loads nothing but its own files, and talks to nothing but this server and, by WebRTC, to peers.
_CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'{sockets}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
#: Names of files that hold a hash of what is in them.
_HASHED = re.compile(r"-[A-Z0-9]{8}\.[a-z]+")
#: What may stand in a policy as a host: anything else would be a policy of somebody else's making.
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?")
_VERSION = version("bonevalue")
_LIBRARY = ("BV.js", "BV.mjs", "BV.d.ts")


def make_pages(*, realm: str, health: Callable[[], dict[str, str]], origins: Origins, folder: Path | None) -> Starlette:
    """
    The web application.

    Args:
        realm: of the server.
        health: the parts of the server and how they are; ``status`` other than ``ok`` is answered with 503.
        origins: which pages may connect.
        folder: of the operator's own pages.
    """
    browser = Path(str(files("bonevalue_server") / "browser"))
    answers = _Answers(_landing(realm, browser / "BV.js"), health, origins, folder)
    routes: list[BaseRoute] = [
        Route("/", answers.landing),
        Route("/healthz", answers.health),
        Route("/origin", answers.origin),
        Route("/console", answers.to_console),
        Route("/favicon.ico", answers.icon),
        Mount("/scripts", Files(browser, only=_LIBRARY, headers=lambda name, headers: _FOR_ALL, compress=True)),
        Mount("/console", Files(browser / "console", headers=_console_headers, compress=True)),
    ]
    if answers.own_pages is not None:
        routes.append(Mount("/", answers.own_pages))
    app = Starlette(routes=routes, middleware=[Middleware(_WithHeaders)])
    app.router.redirect_slashes = False  # it would name scheme and host, which a proxy may have changed
    return app


class _Answers:
    """What is not simply a file: the same arguments as :func:`make_pages`, the landing page made."""

    def __init__(
        self, landing: str, health: Callable[[], dict[str, str]], origins: Origins, folder: Path | None
    ) -> None:
        self.own_pages = None if folder is None else Files(folder)
        self._folder = folder
        self._landing = landing
        self._health = health
        self._origins = origins

    async def landing(self, request: Request) -> Response:
        own_page = await self._own("index.html", request)
        return own_page or HTMLResponse(self._landing, headers={"content-security-policy": _LANDING_POLICY})

    async def health(self, request: Request) -> Response:
        state = self._health()
        return JSONResponse({**state, "version": _VERSION}, status_code=200 if state["status"] == "ok" else 503)

    async def origin(self, request: Request) -> Response:
        """A browser hides from a page why its WebSocket was refused; here it learns whether its origin was why."""
        peer = request.client.host if request.client else ""
        try:
            self._origins.check(peer, _AllOf(request.headers), is_tls=request.url.scheme == "https")
            allowed = True
        except OriginRefused:
            allowed = False
        answer = {"origin": request.headers.get("origin"), "allowed": allowed}
        return JSONResponse(answer, headers={**_FOR_ALL, "cache-control": "no-store"})

    async def icon(self, request: Request) -> Response:
        # Browsers ask for it unasked, and complain without an answer.
        return await self._own("favicon.ico", request) or Response(status_code=204)

    async def to_console(self, request: Request) -> Response:
        return RedirectResponse("console/", status_code=308)

    async def _own(self, name: str, request: Request) -> Response | None:
        """A file of the operator's, if there is one."""
        if self._folder is None or self.own_pages is None or not (self._folder / name).is_file():
            return None
        return await self.own_pages.get_response(name, request.scope)


def _landing(realm: str, script: Path) -> str:
    digest = base64.b64encode(hashlib.sha384(script.read_bytes()).digest()).decode()
    return _LANDING.format(
        realm=escape(realm), version=escape(_VERSION), library="scripts/BV.js", integrity=f"sha384-{digest}"
    )


def _console_headers(name: str, headers: Headers) -> dict[str, str]:
    if _HASHED.search(name):
        return _FOR_EVER
    host = headers.get("host", "")
    # 'self' means the server's WebSocket, too, but not in older browsers.
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return {
        "content-security-policy": _CONSOLE_POLICY.format(sockets=sockets),
        "cross-origin-opener-policy": "same-origin",
    }


class _WithHeaders:
    """Adds to every answer the headers that all have."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _AllOf:
    """The headers of a request, as :mod:`bonevalue_server.origins` reads them."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def get_all(self, key: str, /) -> Sequence[str]:
        values: list[str] = self._headers.getlist(key)
        return values
