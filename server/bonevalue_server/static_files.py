"""Files of a folder, served to browsers: none from outside of it, none that is hidden, and small on the wire."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

__all__ = ["Files", "accepts_gzip"]

#: Types that must not depend on what the machine knows of file names.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".ts": "text/plain; charset=utf-8",
}


class Files(StaticFiles):
    """
    The files of a folder.

    Args:
        folder: that is served, with ``index.html`` for itself and each folder below.
        headers: gives further headers for the name of a file and the headers of the request.
        only: the names that are served; None for all.
        compress: send gzip to whoever takes it. For folders that do not change, and whose files are few and texts:
            each is compressed once, and then kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        headers: Callable[[str, Headers], Mapping[str, str]] = lambda name, headers: {},
        only: Sequence[str] | None = None,
        compress: bool = False,
    ) -> None:
        super().__init__(directory=folder, html=True)
        self._folder = folder.resolve()
        self._headers = headers
        self._only = only
        self._compress = compress

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        found, status = super().lookup_path(path)
        if status is None or any(part.startswith(".") for part in Path(found).relative_to(self._folder).parts):
            return "", None  # a link to what is hidden is hidden, too
        return found, status

    async def get_response(self, path: str, scope: Scope) -> Response:
        if self._only is not None and path not in self._only:
            raise HTTPException(404)
        response = await super().get_response(path, scope)
        if isinstance(response, RedirectResponse):
            # To a folder's own name with a slash. Which scheme and host the browser knows us by is not known here.
            response.headers["location"] = f"./{quote(Path(path).name)}/"
        response.headers.update(self._headers(path, Headers(scope=scope)))
        return response

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        asked = Headers(scope=scope)
        plain = FileResponse(full_path, status_code=status_code, stat_result=stat_result)
        if kind := _TYPES.get(Path(full_path).suffix):
            plain.headers["content-type"] = kind
        response: Response = plain
        if self._compress:
            plain.headers["vary"] = "accept-encoding"
            if accepts_gzip(asked.getlist("accept-encoding")):
                response = _compressed(Path(full_path), plain)
        return NotModifiedResponse(response.headers) if self.is_not_modified(response.headers, asked) else response


def _compressed(file: Path, plain: FileResponse) -> Response:
    """The same answer in fewer bytes, with an entity tag of its own (RFC 9110, section 8.8.3.3)."""
    response = Response(_gzip(file, plain.headers["etag"]), plain.status_code)
    for name in ("content-type", "last-modified", "vary"):
        response.headers[name] = plain.headers[name]
    response.headers["etag"] = f'{plain.headers["etag"][:-1]}-gzip"'
    response.headers["content-encoding"] = "gzip"
    return response


@lru_cache(maxsize=32)
def _gzip(file: Path, changed: str) -> bytes:
    """As it was when it had this entity tag: whoever builds the files anew while they are served gets the new ones."""
    return gzip.compress(file.read_bytes(), mtime=0)


def accepts_gzip(fields: Sequence[str]) -> bool:
    """Whether a client takes gzip, by its ``Accept-Encoding`` (RFC 9110, section 12.5.3)."""
    weights: dict[str, str] = {}
    for entry in ",".join(fields).lower().split(","):
        coding, _, parameter = entry.partition(";")
        weights[coding.strip()] = parameter.replace(" ", "").removeprefix("q=") or "1"
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", "0")))
    return weight.strip("0.") != ""
