"""
The report of everything that is wrong with the settings, whichever step finds it.

A line of it is ``bonevalue.yaml:12: modules[1].class: cannot import modules.fles: no such file``. The value itself is
never repeated, since it may be a secret at the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from bonevalue.errors import ConfigError, Fault
from bonevalue.settings_fields import RoleSettings, Section, keys_of, sections_of, text_with_unit
from bonevalue.settings_tree import Node, Path, Source, dotted

__all__ = ["Faults", "suggestion"]


class Faults:
    """
    Collects what is wrong and raises it all as one.

    Args:
        tree: knows where each value was written.
    """

    def __init__(self, tree: Node) -> None:
        self.tree = tree
        self._faults: dict[Fault, None] = {}
        self._settled: list[Path] = []

    def add(self, path: Path, message: str) -> None:
        """Report a fault of the value at a path like ``("modules", 1, "class")``."""
        self.report(self.tree.locate(path), path, message)

    def report(self, source: Source, path: Path, message: str, *, settled: bool = False) -> None:
        """
        Report a fault that was found at a place.

        Args:
            source: file and line, or environment variable.
            path: the key.
            message: what is wrong, without the value.
            settled: this says it all: what is found later at or below the path only follows from it.
        """
        if any(path[: len(known)] == known for known in self._settled):
            return
        if settled:
            self.settle(path)
        self._faults[Fault(source.place, source.line, dotted(path), message)] = None

    def settle(self, path: Path) -> None:
        """Take no more faults at or below a path: they would only follow from what was reported."""
        self._settled.append(path)

    def add_errors(self, error: ValidationError, path: Path = (), *, model: type[BaseModel] | None = None) -> None:
        """
        Report everything that pydantic found in a value, without the values.

        Args:
            error: what pydantic raised.
            path: where the validated value stands.
            model: what it was validated against, for "did you mean".
        """
        inside = (model.declared_by,) if model is not None and issubclass(model, RoleSettings) and model.inside else ()
        for entry in error.errors(include_url=False, include_input=False):
            if entry["type"] == "default_factory_not_called":
                continue  # follows from another fault
            # pydantic puts the branch of a union that it chose among the keys; ours are in parentheses.
            below = tuple(part for part in entry["loc"] if not (isinstance(part, str) and part.startswith("(")))
            fields = _fields_around(model, below)
            key = str(below[-1]) if below else ""
            text = _message(entry["type"], entry["msg"], entry.get("ctx", {}), fields.get(key))
            if entry["type"] == "extra_forbidden":
                text += suggestion(key, fields.keys() - {key})
            if inside and below and below[0] in RoleSettings.shared:
                self.add(below, text)
            else:
                self.add((*path, *inside, *below), text)

    def __iter__(self) -> Iterator[Fault]:
        return iter(sorted(self._faults, key=lambda fault: (fault.line is None, fault.place, fault.line or 0)))

    def __len__(self) -> int:
        return len(self._faults)

    def check(self) -> None:
        """
        Go on only if there are none.

        Raises:
            ConfigError: with all of them, in the order of the file.
        """
        if self._faults:
            raise ConfigError(faults=tuple(self))


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'address'?`, or nothing if no known word is like it."""
    close = get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _fields_around(model: type[BaseModel] | None, path: Path) -> dict[str, FieldInfo]:
    """The fields among which the last key of a path stands."""
    if model is None:
        return {}
    if not issubclass(model, Section):
        return dict(model.model_fields) if len(path) == 1 else {}
    kinds: list[type[Section]] = [model]
    for part in path[:-1]:
        if isinstance(part, str):
            info = keys_of(kinds).get(part)
            kinds = [] if info is None else sections_of(info.annotation)
    return keys_of(kinds)


_MESSAGES = {
    "missing": "is missing",
    "extra_forbidden": "unknown key",
    "string_type": "must be text: put it in quotes",
    "too_short": "is empty",
    "string_too_short": "is empty",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
}
_MAPPINGS = {"model_type", "model_attributes_type", "dict_type", "dataclass_type", "union_tag_not_found"}
_LISTS = {"tuple_type", "list_type", "set_type"}


def _message(kind: str, text: str, context: dict[str, Any], info: FieldInfo | None) -> str:
    show: Callable[[Any], str] = str if info is None else text_with_unit(info)
    if kind in ("too_short", "string_too_short") and context.get("min_length") != 1:
        kind = ""
    if kind in _MESSAGES:
        return _MESSAGES[kind]
    if kind in _MAPPINGS:
        return "must be a mapping of keys to values"
    if kind in _LISTS:
        return "must be a list"
    if kind == "greater_than_equal":
        return f"must be at least {show(context['ge'])}"
    if kind == "less_than_equal":
        return f"must be at most {show(context['le'])}"
    if kind == "greater_than":
        return f"must be more than {show(context['gt'])}"
    if kind.startswith("bool_"):
        return "must be true or false"
    if kind in ("value_error", "assertion_error"):
        return text.partition(", ")[2] or text
    return re.sub(r"^(Input|Value|String) should", "must", text)
