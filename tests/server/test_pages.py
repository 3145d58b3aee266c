"""What the server serves to browsers: which files and no others, of which type, with which headers."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bonevalue_server.app import DiscoveryServer
from bonevalue_server.static_files import Files, accepts_gzip
from tests.support.hub_world import lay_database, settings_of
from tests.support.node import BUILT
from tests.support.raw_socket import RawSocket

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'{}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
LANDING_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FOR_EVER = "public, max-age=31536000, immutable"


def named(pattern: str) -> str:
    """The path of the one built file for which a pattern stands: those of the console have hashes in their names."""
    (found,) = BUILT.glob(pattern)
    return str(found.relative_to(BUILT))


def whole(path: str) -> str:
    """A path with such a pattern, with the name in its place."""
    return f"/{named(path.lstrip('/'))}" if "*" in path else path


class Site:
    """A server, and a client that asks for its pages."""

    def __init__(self, server: DiscoveryServer, client: httpx.AsyncClient) -> None:
        self.server = server
        self._client = client

    async def ask(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        """What is answered; redirects are not followed."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._client.request(method, path, headers=sent)

    async def status(self, path: str) -> int:
        """Of a path as it stands: no client has tidied it up."""
        client = await RawSocket.open(self.server.port)
        try:
            return await client.request(path)
        finally:
            client.close()


@asynccontextmanager
async def serve(folder: Path, **options: Any) -> AsyncIterator[Site]:
    await lay_database(folder)
    server = DiscoveryServer(settings_of(folder, **options))
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            yield Site(server, client)
    finally:
        await server.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serve(tmp_path) as opened:
        yield opened


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder of an operator's own pages, with what must not be served in it and beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    folder = tmp_path / "pages"
    for name, text in {
        "page.html": "a page",
        "data.json": "{}",
        "docs/index.html": "docs",
        "docs/a b.html": "a blank",
        ".git/config": "secret",
        ".env": "secret",
        "docs/.hidden.html": "secret",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path / "outside")
    (folder / "shown").symlink_to(folder / ".git")
    (folder / "same.html").symlink_to(folder / "page.html")
    return folder


JS, CSS, HTML = "text/javascript; charset=utf-8", "text/css; charset=utf-8", "text/html; charset=utf-8"
#: Path, type, caching, whether pages of other origins may read it, whose file it is.
ROUTES = [
    ("/", HTML, "no-cache", False, None),
    ("/healthz", "application/json", "no-cache", False, None),
    ("/origin", "application/json", "no-store", True, None),
    ("/scripts/BV.js", JS, "no-cache", True, "BV.js"),
    ("/scripts/BV.mjs", JS, "no-cache", True, "BV.mjs"),
    ("/scripts/BV.d.ts", "text/plain; charset=utf-8", "no-cache", True, "BV.d.ts"),
    ("/console/", HTML, "no-cache", False, "console/index.html"),
    ("/console/main-*.css", CSS, FOR_EVER, False, "console/main-*.css"),
    ("/console/main-*.js", JS, FOR_EVER, False, "console/main-*.js"),
]


@pytest.mark.parametrize(("path", "kind", "caching", "for_all", "file"), ROUTES)
async def test_every_route(site: Site, path: str, kind: str, caching: str, for_all: bool, file: str | None) -> None:
    path = whole(path)
    found = await site.ask(path)
    assert found.status_code == 200
    assert found.headers["content-type"] == kind
    assert found.headers["cache-control"] == caching
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["referrer-policy"] == "no-referrer"
    assert found.headers.get("access-control-allow-origin") == ("*" if for_all else None)
    assert found.headers.get("cross-origin-resource-policy") == ("cross-origin" if for_all else None)
    assert "access-control-allow-credentials" not in found.headers and "set-cookie" not in found.headers
    assert file is None or found.content == (BUILT / named(file)).read_bytes()

    head = await site.ask(path, "HEAD")
    assert head.status_code == 200 and not head.content
    assert {**head.headers, "date": ""} == {**found.headers, "date": ""}
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        refused = await site.ask(path, method)
        assert refused.status_code == 405
        assert refused.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", [path for path, *_, file in ROUTES if file is not None])
async def test_a_file_that_the_browser_has_is_not_sent_again(site: Site, path: str) -> None:
    path = whole(path)
    first = await site.ask(path)
    again = await site.ask(path, if_none_match=first.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    for name in ("etag", "cache-control", "access-control-allow-origin", "content-security-policy"):
        assert again.headers.get(name) == first.headers.get(name)
    assert (await site.ask(path, if_none_match='"another"')).status_code == 200


@pytest.mark.parametrize("path", [path for path, *_, file in ROUTES if file is not None])
async def test_whoever_takes_gzip_gets_it(site: Site, path: str) -> None:
    path = whole(path)
    plain = await site.ask(path, accept_encoding="identity")
    small = await site.ask(path, accept_encoding="gzip")
    assert "content-encoding" not in plain.headers and small.headers["content-encoding"] == "gzip"
    assert small.content == plain.content  # the client has unpacked it
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"])
    # Two representations have two entity tags, and a cache is told what they depend on.
    assert small.headers["etag"] != plain.headers["etag"]
    assert small.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    for name in {*plain.headers} - {"etag", "content-length", "accept-ranges", "date"}:
        assert small.headers[name] == plain.headers[name]

    for accepted, mine, other in (("gzip", small, plain), ("identity", plain, small)):
        ours = await site.ask(path, accept_encoding=accepted, if_none_match=mine.headers["etag"])
        theirs = await site.ask(path, accept_encoding=accepted, if_none_match=other.headers["etag"])
        assert (ours.status_code, theirs.status_code) == (304, 200)
        assert (ours.headers["etag"], ours.headers["vary"]) == (mine.headers["etag"], "accept-encoding")
    head = await site.ask(path, "HEAD", accept_encoding="gzip")
    assert not head.content and {**head.headers, "date": ""} == {**small.headers, "date": ""}


async def test_files_built_anew_are_served_anew(tmp_path: Path) -> None:
    file = tmp_path / "BV.js"
    files = Files(tmp_path, compress=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(files), base_url="http://here") as client:
        for text in ("old", "new and longer"):
            file.write_text(text)
            answer = await client.get("/BV.js", headers={"accept-encoding": "gzip"})
            assert (answer.text, answer.headers["content-encoding"]) == (text, "gzip")


@pytest.mark.parametrize(
    ("accepted", "gzip"),
    [
        ([], False),
        ([""], False),
        (["gzip"], True),
        (["GZip"], True),
        (["x-gzip"], True),
        (["deflate, gzip;q=1.0, *;q=0.5"], True),
        (["br", "gzip"], True),
        (["gzip ; q=0.001"], True),
        (["gzip;q=0"], False),
        (["gzip; q=0.000"], False),
        (["*"], True),
        (["*;q=0"], False),
        (["*, gzip;q=0"], False),
        (["*;q=0, gzip"], True),
        (["identity"], False),
        (["br, zstd"], False),
        (["notgzip"], False),
    ],
)
def test_what_a_client_accepts(accepted: list[str], gzip: bool) -> None:
    assert accepts_gzip(accepted) is gzip


async def test_own_pages_are_sent_as_they_are(tmp_path: Path, pages: Path) -> None:
    """They may be large, and may change; a proxy can do better."""
    async with serve(tmp_path, pages=pages) as site:
        found = await site.ask("/page.html", accept_encoding="gzip")
        assert "content-encoding" not in found.headers and found.text == "a page"


async def test_an_icon_and_the_console_without_its_slash(site: Site) -> None:
    icon = await site.ask("/favicon.ico")
    assert (icon.status_code, icon.content) == (204, b"")
    bare = await site.ask("/console")
    assert (bare.status_code, bare.headers["location"]) == (308, "console/")  # whatever a proxy has put before it


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/scripts",
        "/scripts/",
        "/scripts/MANIFEST.json",
        "/scripts/console/index.html",
        "/scripts/../pages.py",
        "/scripts/../browser/BV.js/../../pages.py",
        "/console/../BV.js",
        "/console/../../pages.py",
        "/console/%2e%2e/%2e%2e/pages.py",
        "/console/..%2f..%2fpages.py",
        "/console/..%5c..%5cpages.py",
        "/console//etc/passwd",
        "/console/%2fetc%2fpasswd",
        "/console/%00",
        "/console/index.html%00.js",
        "/console/" + "a" * 5000,
        "/console/nothing-ABCDEFGH.js",
    ],
)
async def test_nothing_else_is_served(site: Site, path: str) -> None:
    assert await site.status(path) == 404


async def test_what_is_not_there_is_not_kept(site: Site) -> None:
    missing = await site.ask("/console/nothing-ABCDEFGH.js")
    assert (missing.status_code, missing.headers["cache-control"]) == (404, "no-cache")
    assert missing.headers["x-content-type-options"] == "nosniff"


# -- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["bv.example.org", "127.0.0.1:8008", "a-b.example.org:443"])
async def test_the_console_loads_its_own_files_and_talks_to_its_own_server(site: Site, host: str) -> None:
    page = await site.ask("/console/", host=host)
    assert page.headers["content-security-policy"] == POLICY.format(f" ws://{host} wss://{host}")
    assert page.headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize(
    "host",
    [
        "evil.net; script-src *",
        "evil.net wss://evil.example",
        "x'unsafe-inline'",
        "evil.net/path",
        "*",
        "evil.net:8008 *",
        "evil.net:123456",
        "user@evil.net",
        "[::1]:8008",  # for browsers 'self' is enough
        "a" * 254,
        "",
    ],
)
async def test_no_host_writes_into_the_policy(site: Site, host: str) -> None:
    page = await site.ask("/console/", host=host)
    assert page.headers["content-security-policy"] == POLICY.format("")


def test_the_page_of_the_console_has_nothing_inline_and_nothing_of_others() -> None:
    page = re.sub('"data:[^"]*"', '"data:"', (BUILT / "console" / "index.html").read_text())
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", page)
    loaded = {f"console/{name}" for name in re.findall(r'(?:src|href)="(?!data:)([^"]*)"', page)}
    assert loaded == {named("console/main-*.js"), named("console/main-*.css")}
    assert not re.search(r"https?:|//\w", page)


async def test_the_landing_page_tells_the_hash_of_the_library(site: Site) -> None:
    page = await site.ask("/")
    assert page.headers["content-security-policy"] == LANDING_POLICY
    script = (await site.ask("/scripts/BV.js")).content
    assert f'integrity="sha384-{base64.b64encode(hashlib.sha384(script).digest()).decode()}"' in page.text
    assert 'href="console/"' in page.text and "<script" not in page.text


# -- whether a page may connect --------------------------------------------------------------------------------------


async def test_a_page_is_told_whether_it_may_connect(tmp_path: Path) -> None:
    async with serve(tmp_path, origins=["https://app.example.org"]) as site:
        for origin, allowed in {
            "http://bv.example.org:8008": True,
            "https://app.example.org": True,
            "https://bv.example.org:8008": False,
            "https://evil.net": False,
            "null": False,
        }.items():
            found = await site.ask("/origin", host="bv.example.org:8008", origin=origin)
            assert found.json() == {"origin": origin, "allowed": allowed}
        assert (await site.ask("/origin")).json() == {"origin": None, "allowed": True}


# -- the operator's own pages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/page.html", "a page"),
        ("/data.json", "{}"),
        ("/docs/", "docs"),
        ("/docs/a%20b.html", "a blank"),
        ("/same.html", "a page"),  # a link to what is there anyway
    ],
)
async def test_own_pages_are_served(tmp_path: Path, pages: Path, path: str, text: str) -> None:
    async with serve(tmp_path, pages=pages) as site:
        found = await site.ask(path)
        assert (found.status_code, found.text) == (200, text)
        assert found.headers["cache-control"] == "no-cache" and found.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in found.headers
        assert (await site.ask(path, if_none_match=found.headers["etag"])).status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/docs/..%2f..%2fsecret.txt",
        "//secret.txt",
        "/%2f..%2fsecret.txt",
        "/link.txt",
        "/up/secret.txt",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/docs/../.git/config",
        "/shown/config",
        "/docs/.hidden.html",
        "/docs/%2e%2e/%2e%2e/outside/secret.txt",
        "/pages.py",
    ],
)
async def test_nothing_hidden_and_nothing_from_elsewhere_is_served(tmp_path: Path, pages: Path, path: str) -> None:
    async with serve(tmp_path, pages=pages) as site:
        assert await site.status(path) == 404


async def test_own_pages_take_the_place_of_the_landing_page_and_of_nothing_else(tmp_path: Path, pages: Path) -> None:
    async with serve(tmp_path, pages=pages) as site:
        assert "BoneValue discovery server" in (await site.ask("/")).text
        (pages / "index.html").write_text("my own")
        (pages / "favicon.ico").write_text("an icon")
        (pages / "healthz").write_text("mine")
        (pages / "scripts").mkdir()
        (pages / "scripts" / "BV.js").write_text("mine")
        first = await site.ask("/")
        assert (first.text, first.headers.get("content-security-policy")) == ("my own", None)
        assert (await site.ask("/", if_none_match=first.headers["etag"])).status_code == 304
        assert (await site.ask("/favicon.ico")).text == "an icon"
        assert (await site.ask("/healthz")).json()["status"] == "ok"
        assert (await site.ask("/scripts/BV.js")).content == (BUILT / "BV.js").read_bytes()


async def test_an_own_landing_page_that_lies_elsewhere_is_not_served(tmp_path: Path, pages: Path) -> None:
    (pages / "index.html").symlink_to(tmp_path / "secret.txt")
    async with serve(tmp_path, pages=pages) as site:
        assert (await site.ask("/")).status_code == 404


async def test_a_folder_without_its_slash_is_redirected_whatever_the_server_is_called(
    tmp_path: Path, pages: Path
) -> None:
    (pages / "a:b c").mkdir()
    (pages / "a:b c" / "index.html").write_text("deep")
    async with serve(tmp_path, pages=pages) as site:
        for path, location in {"/docs": "./docs/", "/a:b%20c": "./a%3Ab%20c/"}.items():
            found = await site.ask(path, host="evil.net")
            assert (found.status_code, found.headers["location"]) == (307, location)
