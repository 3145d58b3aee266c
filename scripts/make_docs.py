"""
Writes the pages that are made from the code: docs/configuration.md and docs/errors.md.

``--check`` writes nothing, and fails if a page is not what the code would give now.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bonevalue.config import FolderEntry, ModuleEntry, PeerSettings
from bonevalue.errors import ERRORS, BoneValueError
from bonevalue.settings_fields import (
    Endpoint,
    IceServerEntry,
    RoleSettings,
    Section,
    is_secret,
    sections_of,
    text_with_unit,
)
from bonevalue.settings_units import Rate, parse_duration, parse_size
from bonevalue_server.config import AccountEntry, DiscoverySettings

DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- Made by scripts/make_docs.py; change the code, then run `make docs-write`. -->\n"

#: Headings of entries of lists; every other section is a key, and its path is its heading.
ENTRIES: dict[type[Section], str] = {
    ModuleEntry: "An entry of `modules`: a class",
    FolderEntry: "An entry of `modules`: a folder",
    IceServerEntry: "An entry of `ice.servers` and `discovery.ice_servers`",
    AccountEntry: "An entry of `discovery.accounts`",
}

CONFIGURATION = """\
# Configuration

One YAML file drives both roles: `bv-run FILE` runs a peer if the file has a section `server`, a discovery server if
it has a section `discovery`, and both in one process if it has both. [bonevalue.yaml](../bonevalue.yaml) is a
complete example. `bv check` tells what is wrong with a file, `bv config` shows what is in effect, and
`bv config --schema` prints a JSON Schema for editors.

## Rules

- **Unknown keys are refused**, with the key that was probably meant; so are environment variables that begin with
  `BV_` and override nothing. A key must not stand twice.
- **All faults are shown at once**, each as `FILE:LINE: KEY: what is wrong`, and nothing is started. Values are
  never repeated in a message, since they may be secrets.
- **`${VAR}`** in any value, also within text, is replaced from the environment, and an unset variable is a fault;
  **`${VAR:-default}`** gives the default if it is unset or empty; `$${` stands for `${`.
- **The environment overrides any key**: `BV_`, then the key's path in capitals, joined by two underscores. Lists
  and whole sections are given as JSON; a list replaces the file's, a section is merged into it.

  ```sh
  BV_SERVER__ADDRESS=wss://bv.example.org BV_MODULES='["modules.echo.Echo"]' bv-run bonevalue.yaml
  ```

  The environment declares no role: without a section `server` in the file, `BV_SERVER__ADDRESS` is only
  warned about.
- **Secrets have a `_file` twin**: `password_file: /run/secrets/password` in place of `password`. The newline at the
  end of the file is not part of the secret; an empty file and giving both are faults. A warning tells when other
  users of the machine may read the file. Secrets are never shown: not in logs, not in messages, not by `bv config`.
- **Durations** are `250ms`, `20s`, `5m`, `1h`, `7d`, `1h30m`, or a number of seconds. **Sizes** are `64KiB`,
  `8MiB`, `1MB`, or a number of bytes. **Rates** are `20/s`, `60/m`, `3/h`, `10/10m` (ten in ten minutes);
  `20/s burst 256` lets so many through at once after a quiet time.
- **Relative paths**, and the imports of `modules`, start from the folder of the file.
- **Null** says the same as leaving a key out.
- The file is YAML 1.2, so `no` and `on` are words. Tags (`!`) and merge keys (`<<`) are refused, aliases (`*`) are
  taken. The file has at most 1 MiB.
- **A peer's `ws://` stays on this machine**, unless `server.insecure` is true. **A server that others can reach**
  (`listen` is not a loopback address) needs a `realm`, takes registrations only if told to, and refuses weak
  passwords in `accounts`.
"""

KEYS = """\
## Keys

The sections of a peer come first, up to `trust`; then that of a discovery server; `log` and `metrics` belong to both.
Two keys of the top level are no sections:

"""

ERRORS_HEAD = """\
# Errors

Each kind of error has a code, which is the same on the wire, in logs, in Python and in JavaScript. In Python all of
them are exceptions below `bonevalue.errors.BoneValueError`, as shown.

"Close" is the WebSocket close code if the discovery server ends a connection for that reason: 4000 to 4499 mean
come back later, 4500 to 4999 do not. "Retry" tells whether trying again, with nothing changed by hand, can help.
"""


def type_of(info: FieldInfo) -> str:
    """What may stand in the file for a field, in words."""
    return _words(info.annotation, info.metadata) + _bounds(info)


def _words(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    checks = {getattr(entry, "func", None) for entry in (*metadata, *getattr(annotation, "__metadata__", ()))}
    units: dict[Any, str] = {parse_duration: "duration", parse_size: "size", Rate.parse: "rate"}
    for check, words in (units | {Endpoint.parse: "host:port"}).items():
        if check in checks:
            return words
    arguments = [part for part in get_args(annotation) if part not in (NoneType, Ellipsis)]
    origin = get_origin(annotation)
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in arguments)
    if origin is tuple:
        return "list"
    if origin is dict or sections_of(annotation):
        return "mapping"
    if arguments:
        return _words(arguments[0])
    return {bool: "true \\| false", int: "number", float: "number", Path: "path", SecretStr: "secret"}.get(
        annotation, "text"
    )


def _bounds(info: FieldInfo) -> str:
    """The range of numbers that are taken."""
    show = text_with_unit(info)
    low = next((entry.ge for entry in info.metadata if isinstance(entry, Ge)), None)
    above = next((entry.gt for entry in info.metadata if isinstance(entry, Gt)), None)
    high = next((entry.le for entry in info.metadata if isinstance(entry, Le)), None)
    if any(isinstance(entry, Lt) for entry in info.metadata):
        raise ValueError("no words for Lt yet")
    if low is not None and high is not None:
        return f", {show(low)} to {show(high)}"
    words = [f"at least {show(low)}"] if low is not None else []
    words += ["above 0"] if above is not None else []
    words += [f"at most {show(high)}"] if high is not None else []
    return ", " + ", ".join(words) if words else ""


def default_of(key: str, info: FieldInfo, written: dict[str, Any]) -> str:
    """What holds if the key is left out."""
    if info.is_required():
        return "needed"
    extra = info.json_schema_extra
    value = extra.get("default") if isinstance(extra, dict) else written.get(key)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{json.dumps(value)}`"
    return "" if value is None else f"`{value}`"


def table(section: type[Section], skip: frozenset[str] = frozenset()) -> str:
    """The keys of one section."""
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    written = section.written_defaults()
    for key, info in section.key_fields().items():
        if key not in skip:
            shown = f"`{key}`, `{key}_file`" if is_secret(info) else f"`{key}`"
            lines.append(f"| {shown} | {type_of(info)} | {default_of(key, info, written)} | {info.description} |")
    return "\n".join(lines) + "\n"


def sections_below(section: type[Section], path: str) -> Iterable[tuple[str, type[Section]]]:
    """All sections below one, each once, with its heading."""
    for key, info in section.key_fields().items():
        for below in sections_of(info.annotation):
            here = f"{path}.{key}".lstrip(".")
            yield ENTRIES.get(below, f"`{here}`"), below
            yield from sections_below(below, here)


def configuration() -> str:
    """docs/configuration.md."""
    top_level = frozenset(key for key, info in PeerSettings.key_fields().items() if not _stands_alone(info))
    parts = [
        MADE,
        CONFIGURATION,
        KEYS + table(PeerSettings, top_level),
    ]
    shown: dict[str, type[Section]] = dict(sections_below(PeerSettings, ""))
    log = shown.pop("`log`")
    shown["`discovery`"] = DiscoverySettings
    shown |= {name: kind for name, kind in sections_below(DiscoverySettings, "discovery") if kind is not log}
    shown["`log`"] = log
    for heading, section in shown.items():
        skip = RoleSettings.shared if section is DiscoverySettings else frozenset[str]()
        parts.append(f"### {heading}\n\n{text_of(section)}\n\n{table(section, skip)}")
    return "\n".join(parts)


def _stands_alone(info: FieldInfo) -> bool:
    """Whether a top-level key is a value or a list rather than a section, which has a table of its own."""
    return not any(info.annotation is section for section in sections_of(info.annotation))


def text_of(documented: type) -> str:
    """A docstring as Markdown."""
    return (inspect.getdoc(documented) or "").replace("``", "`")


def errors() -> str:
    """docs/errors.md."""
    lines = ["| code | class | close | retry | meaning |", "| --- | --- | --- | --- | --- |"]
    for code, kind in ERRORS.items():
        meaning = " ".join(text_of(kind).partition("\n\n")[0].split())
        close = "" if kind.close is None else str(kind.close)
        lines.append(f"| `{code}` | `{_below_root(kind)}` | {close} | {'yes' if kind.retry else 'no'} | {meaning} |")
    return "\n".join([MADE, ERRORS_HEAD, "\n".join(lines), ""])


def _below_root(kind: type[BoneValueError]) -> str:
    """`LinkError.LinkLost`: the class below the family it belongs to."""
    names = [parent.__name__ for parent in kind.__mro__ if issubclass(parent, BoneValueError)]
    return ".".join(reversed(names[:-1]))


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is out of date")
    check: bool = parser.parse_args().check
    status = 0
    for name, text in {"configuration.md": configuration(), "errors.md": errors()}.items():
        page = DOCS / name
        if check:
            if not page.exists() or page.read_text(encoding="utf-8") != text:
                sys.stderr.write(f"docs/{name} is out of date: run `make docs-write`\n")
                status = 1
        else:
            page.write_text(text, encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
