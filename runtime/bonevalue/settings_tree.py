"""
The YAML file as a tree whose every value knows where it was written.

The tree is built from PyYAML's events, not from its objects: so each node keeps its line, a key that stands twice is
seen, depth and size are bounded before anything is built, and plain words are read by YAML 1.2 (``no`` is a word, not
false). No message repeats a value of the file, because any value may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

__all__ = ["MAX_BYTES", "Node", "Path", "Report", "Source", "dotted", "interpolate", "node_of", "parse", "variables"]

#: Largest settings file.
MAX_BYTES = 2**20
#: Deepest nesting.
MAX_DEPTH = 32
#: Most values in one file, what aliases repeat included.
MAX_NODES = 100_000

Path = tuple[str | int, ...]
#: Takes a fault: where it was written, its key, what is wrong.
Report = Callable[["Source", Path, str], None]

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_BASED = re.compile(r"0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,2})?")
_INTERPOLATION = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value was written: a line of a file, or an environment variable (then without line)."""

    place: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """
    A value and where it was written.

    ``value`` is a dict of nodes, a list of nodes, or a scalar. Nodes may be shared (YAML aliases): they never change.
    """

    # May be or hold a secret.
    value: dict[str, Node] | list[Node] | str | int | float | bool | None = field(repr=False)
    source: Source
    size: int = 1

    @property
    def plain(self) -> Any:
        """The value without marks."""
        if isinstance(self.value, dict):
            return {key: child.plain for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain for child in self.value]
        return self.value

    def child(self, part: str | int) -> Node | None:
        """What stands under a key or index."""
        if isinstance(self.value, dict):
            return self.value.get(part) if isinstance(part, str) else None
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            return self.value[part]
        return None

    def locate(self, path: Path) -> Source:
        """Where the value at a path was written; for what is missing, where the next thing around it was."""
        node, source = self, self.source
        for part in path:
            found = node.child(part)
            if found is None:
                twin = node.child(f"{part}_file")
                return source if twin is None else twin.source
            node, source = found, found.source
        return source


def dotted(path: Path) -> str:
    """A path as people write it: ``modules[1].class``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            # A key is shown as it stands only if it does no harm on a terminal.
            shown = part if part and part.isprintable() and len(part) <= 100 else repr(part)[:100]
            text += f".{shown}" if text else shown
    return text


def node_of(value: Any, source: Source, depth: int = 0) -> Node:
    """
    The tree of a JSON value.

    Raises:
        ValueError: it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        return Node({str(key): node_of(child, source, depth + 1) for key, child in value.items()}, source)
    if isinstance(value, list):
        return Node([node_of(child, source, depth + 1) for child in value], source)
    return Node(value, source)


# -- from text to tree -----------------------------------------------------------------------------------------


class _Unreadable(Exception):
    """The text is no YAML that we take: message and line."""

    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.line: int = 1 if mark is None else mark.line + 1


def parse(text: str, *, place: str, report: Report) -> Node | None:
    """
    The tree of a YAML text; whatever is wrong with it is reported, and if nothing can be read, the result is None.

    Args:
        text: the whole file.
        place: name of the file for reports.
        report: takes each fault.
    """
    builder = _Builder(place, report)
    try:
        return builder.document(yaml.parse(text, Loader=yaml.SafeLoader))
    except _Unreadable as error:
        report(Source(place, error.line), (), str(error))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        report(Source(place, 1 if mark is None else mark.line + 1), (), f"is no YAML: {_problem(error)}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        report(Source(place, line), (), "is no YAML: holds a control character")
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML's scanner lets some of Python's own errors through, as for "\UFFFFFFFF".
        report(Source(place, 1), (), "is no YAML")
    return None


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "cannot be read"
    if "tag handle" in problem:
        return "quote a value that begins with !"
    if "cannot start any token" in problem:
        return f"{problem} (quote the value if it begins with that)"
    if problem.startswith("mapping values are not allowed"):
        return "a colon where none may stand (quote the value if it holds one)"
    return problem


class _Builder:
    def __init__(self, place: str, report: Report) -> None:
        self._place = place
        self._report = report
        self._anchors: dict[str, Node] = {}
        self._size = 0

    def document(self, events: Iterator[Any]) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Unreadable("holds more than one YAML document", event.start_mark)
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, events, ())
        return root

    def _node(self, event: Any, events: Iterator[Any], path: Path) -> Node:
        if len(path) > MAX_DEPTH:
            raise _Unreadable(f"is nested more than {MAX_DEPTH} deep", event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        # A node that an alias below it names does not exist yet, so nothing can contain itself.
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise _Unreadable("tags are not taken: quote a value that begins with !", event.start_mark)
        if isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(event, events, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(child := next(events), yaml.SequenceEndEvent):
                items.append(self._node(child, events, (*path, len(items))))
            node = self._made(items, event, 1 + sum(item.size for item in items))
        else:
            plain = event.style is None and event.tag is None
            node = self._made(_scalar(event.value) if plain else event.value, event)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        known = self._anchors.get(event.anchor)
        if known is None:
            raise _Unreadable("no such anchor: quote a value that begins with *", event.start_mark)
        return self._counted(replace(known, source=self._source(event)), known.size, event)

    def _mapping(self, event: Any, events: Iterator[Any], path: Path) -> Node:
        children: dict[str, Node] = {}
        while not isinstance(key_event := next(events), yaml.MappingEndEvent):
            if not isinstance(key_event, yaml.ScalarEvent):
                raise _Unreadable("a key must be a word", key_event.start_mark)
            key = key_event.value
            child = self._node(next(events), events, (*path, key))
            if key == "<<":
                raise _Unreadable("merge keys (<<) are not taken", key_event.start_mark)
            if key in children:
                first = children[key].source.line
                self._report(self._source(key_event), (*path, key), f"stands twice; the first is in line {first}")
            else:
                children[key] = replace(child, source=self._source(key_event))
        return self._made(children, event, 1 + sum(child.size for child in children.values()))

    def _made(self, value: Any, event: Any, size: int = 1) -> Node:
        return self._counted(Node(value, self._source(event), size), 1, event)

    def _counted(self, node: Node, more: int, event: Any) -> Node:
        self._size += more
        if self._size > MAX_NODES:
            raise _Unreadable(f"holds more than {MAX_NODES} values", event.start_mark)
        return node

    def _source(self, event: Any) -> Source:
        return Source(self._place, event.start_mark.line + 1)


def _scalar(text: str) -> str | int | float | bool | None:
    """What a plain word means by the core schema of YAML 1.2; numbers out of all proportion stay text."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


# -- ${VAR} ----------------------------------------------------------------------------------------------------


def variables(node: Node) -> set[str]:
    """The names of all variables that the values of a tree ask for."""
    if isinstance(node.value, dict):
        return {name for child in node.value.values() for name in variables(child)}
    if isinstance(node.value, list):
        return {name for child in node.value for name in variables(child)}
    if isinstance(node.value, str) and node.source.line is not None:
        return {found[1] for found in _INTERPOLATION.finditer(node.value) if found[1]}
    return set()


def interpolate(node: Node, environ: Mapping[str, str], *, path: Path, report: Report) -> Node:
    """
    The tree with ``${VAR}`` and ``${VAR:-default}`` replaced in all its values; ``$${`` gives ``${``.

    A default stands in for a variable that is unset or empty. What came from the environment is left as it is.
    """
    if isinstance(node.value, dict):
        children = {
            key: interpolate(child, environ, path=(*path, key), report=report) for key, child in node.value.items()
        }
        return replace(node, value=children)
    if isinstance(node.value, list):
        items = [
            interpolate(child, environ, path=(*path, index), report=report) for index, child in enumerate(node.value)
        ]
        return replace(node, value=items)
    if not isinstance(node.value, str) or node.source.line is None or "${" not in node.value:
        return node

    def expand(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        name: str | None = found[1]
        default: str | None = found[2]
        problem = ""
        if name is None:
            problem = "holds ${ without a name and }: write ${NAME}, ${NAME:-default}, or $${ for the text ${"
        elif name not in environ and default is None:
            problem = f"the environment variable {name} is not set"
        if problem:
            report(node.source, path, problem)
            return ""
        return environ.get(name or "") or default or ""

    return replace(node, value=_INTERPOLATION.sub(expand, node.value))
