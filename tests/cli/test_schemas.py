"""Schemas for people: those that pydantic makes, and those that nobody should send."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from bonevalue.cli.schemas import alternatives


class Reading(BaseModel):
    sensor: str
    unit: Literal["C", "F"] = "C"
    at: list[float | None] = []


class Tree(BaseModel):
    value: int
    left: Tree | None = None
    right: Tree | None = None


class List(BaseModel):
    op: Literal["list"]
    path: str = ""


class Read(BaseModel):
    op: Literal["read"]
    path: str
    offset: Annotated[int, Field(ge=0)] = 0


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (str, ["string"]),
        (list[int], ["integer[]"]),
        (list[int | str], ["(integer | string)[]"]),
        (tuple[int, str], ["[integer, string]"]),
        (dict[str, bool], ["{[name]: boolean}"]),
        (Any, ["any"]),
        (None, ["null"]),
        (int | None, ["integer", "null"]),
        (Literal["a", 1], ['"a"', "1"]),
        (Literal["only"], ['"only"']),
        (Reading, ['{sensor: string, unit?: "C" | "F" = "C", at?: (number | null)[] = []}']),
        (Annotated[List | Read, Field(discriminator="op")],
         ['{op: "list", path?: string = ""}', '{op: "read", path: string, offset?: integer = 0}']),
    ],
)  # fmt: skip
def test_what_pydantic_makes(kind: Any, texts: list[str]) -> None:
    assert alternatives(TypeAdapter(kind).json_schema()) == texts


def test_bytes_are_bytes() -> None:
    assert alternatives({"type": "string", "format": "binary"}) == ["bytes"]


def test_what_refers_to_itself_ends() -> None:
    [text] = alternatives(TypeAdapter(Tree).json_schema())
    assert text.startswith("{value: integer, left?: {value: integer, left?: ") and "..." in text
    assert len(text) < 10_000


LAUGHS = {
    "$ref": "#/$defs/0",
    "$defs": {
        str(level): {"anyOf": [{"type": "array", "items": {"$ref": f"#/$defs/{level + 1}"}} for _ in range(50)]}
        for level in range(50)
    },
}
WIDE = {"type": "object", "properties": {f"f{number}": {"type": "string"} for number in range(100_000)}}


LONG = {"type": "object", "properties": {"x" * 100_000: {"const": "y" * 100_000, "default": "z" * 100_000}}}


@pytest.mark.parametrize("schema", [LAUGHS, WIDE, LONG, {"enum": list(range(100_000))}, {"anyOf": [{}] * 100_000}])
def test_no_schema_makes_an_endless_text(schema: dict[str, Any]) -> None:
    assert sum(map(len, alternatives(schema))) < 20_000


@pytest.mark.parametrize(
    "schema",
    [None, True, "text", 5, [], {}, {"type": 5}, {"type": "object", "properties": []}, {"type": []}, {"anyOf": {}},
     {"type": "object", "properties": {"a": None}, "required": 5}, {"$ref": 5}, {"$ref": "#/$defs/none"}, {"enum": 5},
     {"$defs": 5, "$ref": "#/$defs/x"}, {"type": "array", "prefixItems": 5}, {"type": "array", "items": []},
     {"type": "object", "properties": {"a b": {"const": {"x": 1}}, "\u202e": {"type": ["string", "null", {}]}}}],
)  # fmt: skip
def test_what_is_no_schema_is_read_all_the_same(schema: Any) -> None:
    for text in alternatives(json.loads(json.dumps(schema))):
        assert text
