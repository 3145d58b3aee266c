"""
JSON Schemas for people, as one would write down the value: ``{sensor: string, unit?: "C" | "F" = "C"}``.

What a schema says beyond that (limits, patterns, descriptions) is left out; ``--json`` has it. Schemas come from other
peers, which may send anything: whatever is no schema is ``any``, and no schema can make the text endless.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["alternatives"]

#: Parts of a schema that are written down, at most, and how deep they may lie in each other.
MAX_PARTS, MAX_DEPTH = 200, 8
#: Letters of a constant or default that are shown.
MAX_VALUE = 60
#: What stands for the rest.
MORE = "..."


def alternatives(schema: Any) -> list[str]:
    """The forms that a value may have, each a text; most schemas have one."""
    return _Reader(schema).alternatives(schema, 0)


class _Reader:
    def __init__(self, root: Any) -> None:
        self._definitions = _dict(_dict(root).get("$defs"))
        self._parts = 0

    def alternatives(self, schema: Any, depth: int) -> list[str]:
        """The forms of a part, each once."""
        self._parts += 1
        if depth > MAX_DEPTH or self._parts > MAX_PARTS:
            return [MORE]
        schema = _dict(schema)
        if "$ref" in schema:
            return self.alternatives(self._definitions.get(str(schema["$ref"]).removeprefix("#/$defs/")), depth + 1)
        if "const" in schema:
            return [_value(schema["const"])]
        for key, form in (("enum", self._values), ("anyOf", self._any), ("oneOf", self._any), ("type", self._types)):
            found = schema.get(key)
            if isinstance(found, list):
                return list(dict.fromkeys(form(schema, found, depth)))
        return [self._single(schema, schema.get("type"), depth)]

    def _values(self, schema: dict[str, Any], values: list[Any], depth: int) -> list[str]:
        return [_value(value) for value in values[:MAX_PARTS]]

    def _any(self, schema: dict[str, Any], parts: list[Any], depth: int) -> list[str]:
        return [text for part in parts[:MAX_PARTS] for text in self.alternatives(part, depth + 1)]

    def _types(self, schema: dict[str, Any], names: list[Any], depth: int) -> list[str]:
        return [self._single(schema, name, depth) for name in names[:MAX_PARTS]]

    def _text(self, schema: Any, depth: int) -> str:
        return " | ".join(self.alternatives(schema, depth))

    def _single(self, schema: dict[str, Any], kind: Any, depth: int) -> str:
        match kind:
            case "object":
                return self._object(schema, depth + 1)
            case "array":
                return self._array(schema, depth + 1)
            case "string" if schema.get("format") == "binary":
                return "bytes"
            case "string" | "integer" | "number" | "boolean" | "null":
                return str(kind)
            case _:
                return "any"

    def _object(self, schema: dict[str, Any], depth: int) -> str:
        required = schema.get("required")
        needed = required if isinstance(required, list) else []
        fields = []
        for name, part in _dict(schema.get("properties")).items():
            if self._parts > MAX_PARTS:
                fields.append(MORE)
                break
            shown = name if name.isidentifier() and len(name) <= MAX_VALUE else _value(name)
            field = f"{shown}{'' if name in needed else '?'}: {self._text(part, depth)}"
            default = _dict(part).get("default")
            fields.append(field if default is None else f"{field} = {_value(default)}")
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            fields.append(f"[name]: {self._text(rest, depth)}")
        return "{" + ", ".join(fields) + "}" if fields else "object"

    def _array(self, schema: dict[str, Any], depth: int) -> str:
        first = schema.get("prefixItems")
        if isinstance(first, list) and first:
            return "[" + ", ".join(self._text(part, depth) for part in first[:MAX_PARTS]) + "]"
        items = self._text(schema.get("items"), depth)
        return f"({items})[]" if " | " in items else f"{items}[]"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + MORE
