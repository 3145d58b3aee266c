"""
Lays the environment over the tree of the file: ``BV_SERVER__ADDRESS`` overrides ``server.address``.

A variable's name is the key's path in capitals, joined by two underscores. A list or mapping is given as JSON: a list
whole, a mapping merged key by key. Names that lead to no key are faults, like unknown keys in the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_origin

from pydantic.fields import FieldInfo

from bonevalue.settings_faults import Faults, suggestion
from bonevalue.settings_fields import RoleSettings, is_secret, keys_of, parts_of, sections_of
from bonevalue.settings_tree import Node, Path, Source, node_of

__all__ = ["PREFIX", "keys_by_variable", "override"]

#: Every variable that begins so is ours.
PREFIX = RoleSettings.model_config.get("env_prefix") or ""
_DELIMITER = RoleSettings.model_config.get("env_nested_delimiter") or ""


def keys_by_variable(roles: Iterable[type[RoleSettings]]) -> dict[str, tuple[Path, FieldInfo | None]]:
    """Every variable that overrides a key: the key's path, and its field (None for a ``_file`` twin)."""
    known: dict[str, tuple[Path, FieldInfo | None]] = {}
    for role in roles:
        if role.inside:
            known[_variable((role.declared_by,))] = ((role.declared_by,), FieldInfo(annotation=role))
        for key, info in role.key_fields().items():
            start = (role.declared_by, key) if role.inside and key not in role.shared else (key,)
            known.update(_below(start, key, info))
    return known


def _below(path: Path, key: str, info: FieldInfo) -> Iterator[tuple[str, tuple[Path, FieldInfo | None]]]:
    yield _variable(path), (path, info)
    if is_secret(info) and not _is_list(info):
        twin = (*path[:-1], f"{key}_file")
        yield _variable(twin), (twin, None)
    if not _is_list(info):
        for name, below in keys_of(sections_of(info.annotation)).items():
            yield from _below((*path, name), name, below)


def _variable(path: Path) -> str:
    return PREFIX + _DELIMITER.join(map(str, path)).upper()


def _is_list(info: FieldInfo) -> bool:
    return any(get_origin(part) in (tuple, list) for part in parts_of(info.annotation))


def _is_json(info: FieldInfo | None) -> bool:
    return info is not None and (_is_list(info) or bool(sections_of(info.annotation)))


def override(
    tree: Node,
    roles: Collection[type[RoleSettings]],
    environ: Mapping[str, str],
    *,
    idle: Collection[type[RoleSettings]],
    interpolated: Collection[str],
    faults: Faults,
    warn: Callable[[str], None],
) -> Node:
    """
    The tree with what the environment says about its keys.

    Args:
        tree: the file.
        roles: those that the file declares.
        environ: the environment.
        idle: roles that it does not declare; a variable of theirs declares none, but is worth a warning.
        interpolated: variables that the file itself asks for, which are therefore known.
        faults: takes unknown variables and JSON that cannot be read.
        warn: takes warnings.
    """
    known = keys_by_variable(roles)
    unused = keys_by_variable(idle)
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if name in known:
            tree = _overridden(tree, name, environ[name], known[name], faults)
        elif name in interpolated or not name.startswith(PREFIX):
            continue
        elif name in unused:
            warn(f"{name}: overrides nothing: the file has no section {_section(unused[name][0], idle)}")
        else:
            faults.report(Source(name), (), _unknown(name, known | unused))
    return tree


def _overridden(tree: Node, name: str, text: str, key: tuple[Path, FieldInfo | None], faults: Faults) -> Node:
    path, info = key
    if not _is_json(info):
        return _laid(tree, path, Node(text, Source(name)))
    try:
        return _laid(tree, path, node_of(json.loads(text), Source(name)))
    except (ValueError, RecursionError):
        faults.report(Source(name), path, "is no JSON: a list or mapping is written as JSON", settled=True)
        return tree


def _section(path: Path, roles: Collection[type[RoleSettings]]) -> str:
    """The section whose presence would make a key count."""
    owners = [role.declared_by for role in roles if role.declared_by == path[0] or path[0] in role.key_fields()]
    return owners[0]


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    for variable, (_, info) in known.items():
        if info is not None and _is_list(info) and name.startswith(f"{variable}__"):
            return f"overrides no key: a list is given whole, as JSON in {variable}"
    return "overrides no key" + suggestion(name.upper(), known)


def _laid(tree: Node, path: Path, value: Node) -> Node:
    """The tree with a value at a path, merged if both are mappings."""
    if not path:
        if isinstance(tree.value, dict) and isinstance(value.value, dict):
            for key, child in value.value.items():
                tree = _laid(tree, (key,), child)
            return tree
        return value
    key = str(path[0])
    children = dict(tree.value) if isinstance(tree.value, dict) else {}
    # A secret and its `_file` twin are one thing: what the environment says of one replaces the file's other.
    for twin in (f"{key}_file", key.removesuffix("_file")):
        if twin != key and twin in children and children[twin].source.line is not None:
            del children[twin]
    children[key] = _laid(children.get(key, Node({}, value.source)), path[1:], value)
    return replace(tree, value=children)
