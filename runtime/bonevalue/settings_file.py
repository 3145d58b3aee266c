"""
Reads the YAML file that drives both roles, and the environment, and reports every fault at once.

The way of a value: text -> tree with marks (:mod:`~bonevalue.settings_tree`) -> environment laid over it
(:mod:`~bonevalue.settings_environment`) -> ``${VAR}`` replaced -> ``KEY_file`` read into ``KEY`` -> the role's model.
What is wrong on the way goes into one :class:`~bonevalue.settings_faults.Faults`, with file, line and key. Later steps
(a module that cannot be imported, a module's own ``config:``) add theirs, then ``faults.check()`` raises all of it.

The roles' models are handed in, because the runtime does not know the server. This is the only place where the
environment becomes settings: an object made in code is what its arguments say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from bonevalue.errors import ConfigError, Fault
from bonevalue.settings_environment import override
from bonevalue.settings_faults import Faults, suggestion
from bonevalue.settings_fields import (
    RoleSettings,
    Section,
    is_private,
    is_secret,
    keys_of,
    sections_of,
    sound_items,
    starting_from,
)
from bonevalue.settings_tree import MAX_BYTES, Node, Source, dotted, interpolate, parse, variables
from bonevalue.settings_tree import Path as KeyPath

__all__ = ["MAX_SECRET", "Faults", "KeyPath", "Loaded", "Roles", "load", "masked", "read", "schema"]

Role = TypeVar("Role", bound=RoleSettings)
Roles = Mapping[str, type[RoleSettings]]

#: Largest file that a ``KEY_file`` names.
MAX_SECRET = 4096


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    What one file and the environment say.

    Args:
        path: the file, as it was named.
        folder: from which relative paths and imports start.
        settings: of each role; None if the file does not declare it, it was not asked for, or it has faults.
        faults: everything that is wrong so far; the place to add what later steps find.
        warnings: what is not wrong, and yet to be told.
    """

    path: Path
    folder: Path
    settings: Mapping[str, RoleSettings | None]
    faults: Faults
    warnings: tuple[str, ...]
    _data: Mapping[str, Any] = field(repr=False)
    _roles: Roles = field(repr=False)

    def get(self, kind: type[Role]) -> Role | None:
        """The settings of one role."""
        return next((found for found in self.settings.values() if isinstance(found, kind)), None)

    def sound(self, role: str, key: str) -> list[tuple[KeyPath, Any]]:
        """
        The items of a top-level list that are right by themselves, with their paths, whatever else is wrong.

        So that the import of ``modules`` can be tried, and reported with the rest, although another key has a fault.
        """
        # The annotation is `tuple[ITEM, ...]`.
        item = get_args(self._roles[role].model_fields[key].annotation)[0]
        items = self._data.get(role, {}).get(key)
        with starting_from(self.folder):
            return [((key, index), found) for index, found in sound_items(items, item)]

    def masked(self) -> dict[str, Any]:
        """Everything in effect, as it would stand in a file, without secrets."""
        shown: dict[str, Any] = {}
        for settings in self.settings.values():
            if settings is not None:
                keys = masked(settings)
                # What roles share comes last.
                shown = {key: value for key, value in shown.items() if key not in keys} | keys
        return shown


def load(path: Path | str, roles: Roles, *, environ: Mapping[str, str], only: Collection[str] | None = None) -> Loaded:
    """
    The settings that a file and the environment give.

    Args:
        path: the YAML file.
        roles: the model of each role, by the name that messages give it.
        environ: the environment.
        only: the roles to look at, each of which the file must declare; None for all that it declares.

    Raises:
        ConfigError: something is wrong; its ``faults`` are all of it.
    """
    loaded = read(path, roles, environ=environ, only=only)
    loaded.faults.check()
    return loaded


def read(path: Path | str, roles: Roles, *, environ: Mapping[str, str], only: Collection[str] | None = None) -> Loaded:
    """
    Like :func:`load`, but what is wrong with keys and values is only collected: add to ``faults``, then check them.

    Raises:
        ConfigError: the file cannot be read, or is no YAML mapping.
    """
    path = Path(path)
    faults = Faults(Node({}, Source(str(path))))
    tree = parse(_text(path), place=str(path), report=faults.report)
    if tree is None and not faults:
        faults.report(Source(str(path)), (), "is empty")
    elif tree is not None and not isinstance(tree.value, dict):
        faults.report(tree.source, (), "must be a mapping of keys to values")
    if tree is None or not isinstance(tree.value, dict):
        raise ConfigError(faults=tuple(faults))
    return _Reading(path, roles, environ, tree, faults).loaded(only)


def masked(settings: RoleSettings) -> dict[str, Any]:
    """The settings of one role as they would stand in a file, without secrets."""
    shown = settings.model_dump(mode="json", by_alias=True)
    top = {key: shown.pop(key) for key in sorted(settings.shared)}
    return ({settings.declared_by: shown} if settings.inside else shown) | top


def schema(roles: Roles) -> dict[str, Any]:
    """The JSON Schema of the file, all roles in one, for editors (``# yaml-language-server: $schema=...``)."""
    properties: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for role in roles.values():
        made = role.model_json_schema(by_alias=True)
        parts |= made.pop("$defs", {})
        keys = made.pop("properties")
        properties |= {key: keys.pop(key) for key in role.shared}
        if role.inside:
            properties[role.declared_by] = {**made, "properties": keys}
        else:
            properties |= keys
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bonevalue.yaml",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "anyOf": [{"required": [role.declared_by]} for role in roles.values()],
        "$defs": parts,
    }


def _text(path: Path) -> str:
    """The whole file; ConfigError if it cannot be had."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        problem = "no such file"
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or 'no such path'}"
    else:
        try:
            if len(raw) <= MAX_BYTES:
                return raw.decode("utf-8-sig")
            problem = f"is larger than {MAX_BYTES >> 20} MiB"
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            problem = f"is not UTF-8 in line {line}"
    raise ConfigError(faults=[Fault(str(path), None, "", problem)])


class _Reading:
    """One reading of one file, from the tree to the settings."""

    def __init__(self, path: Path, roles: Roles, environ: Mapping[str, str], tree: Node, faults: Faults) -> None:
        self._path = path
        self._folder = path.absolute().parent
        self._roles = roles
        self._environ = environ
        self._keys = _children(tree)
        self._declared = {name: role for name, role in roles.items() if role.declared_by in self._keys}
        self._faults = faults
        self._warnings: list[str] = []
        self._lay_environment_over(tree)

    def loaded(self, only: Collection[str] | None) -> Loaded:
        self._check_keys()
        active = self._active(only)
        for key, sections in _sections_of_keys(active).items():
            if key in self._keys:
                node = interpolate(
                    self._keys[key], self._environ, path=(key,), report=partial(self._faults.report, settled=True)
                )
                self._keys[key] = self._with_secrets(node, sections, (key,))
        data = {name: self._data(role) for name, role in active.items()}
        return Loaded(
            path=self._path,
            folder=self._folder,
            settings={
                name: self._settings(active[name], data[name]) if name in active else None for name in self._roles
            },
            faults=self._faults,
            warnings=tuple(self._warnings),
            _data=data,
            _roles=self._roles,
        )

    def _lay_environment_over(self, tree: Node) -> None:
        self._faults.tree = override(
            tree,
            self._declared.values(),
            self._environ,
            idle=[role for name, role in self._roles.items() if name not in self._declared],
            faults=self._faults,
            interpolated=variables(tree),
            warn=self._warnings.append,
        )
        self._keys = _children(self._faults.tree)

    def _active(self, only: Collection[str] | None) -> dict[str, type[RoleSettings]]:
        if only is None:
            if not self._declared:
                roles = ", ".join(f"{role.declared_by} makes it a {name}" for name, role in self._roles.items())
                self._faults.add((), f"declares no role: the section {roles}")
            return self._declared
        for name in only:
            if name not in self._declared:
                self._faults.add((), f"declares no {name}: it has no section {self._roles[name].declared_by}")
        return {name: role for name, role in self._declared.items() if name in only}

    def _check_keys(self) -> None:
        """Top-level keys belong to a role, and to one that the file declares."""
        owners: dict[str, list[str]] = {}
        for name, role in self._roles.items():
            for key in _sections_of_keys({name: role}):
                owners.setdefault(key, []).append(name)
        for key in self._keys:
            if key not in owners:
                self._faults.add((key,), "unknown key" + suggestion(key, owners))
            elif self._declared and not self._declared.keys() & set(owners[key]):
                role = self._roles[owners[key][0]]
                self._faults.add((key,), f"is for a {owners[key][0]}, and there is no section {role.declared_by}")

    def _data(self, role: type[RoleSettings]) -> Any:
        """What the model of a role validates."""
        if not role.inside:
            return {key: node.plain for key, node in self._keys.items() if key in role.key_fields()}
        node = self._keys[role.declared_by]
        if node.value is not None and not isinstance(node.value, dict):
            return node.plain
        data = dict(node.plain or {})
        for key in sorted(role.shared & data.keys()):
            self._faults.add((role.declared_by, key), f"unknown key; {key} stands at the top level")
            del data[key]
        return data | {key: self._keys[key].plain for key in role.shared if key in self._keys}

    def _settings(self, role: type[RoleSettings], data: Any) -> RoleSettings | None:
        try:
            with starting_from(self._folder):
                return role.model_validate(data)
        except ValidationError as error:
            self._faults.add_errors(error, model=role)
            return None

    # -- files with secrets

    def _with_secrets(self, node: Node, sections: Collection[type[Section]], path: KeyPath) -> Node:
        """The tree with the contents of its ``KEY_file`` in place of them."""
        if isinstance(node.value, list):
            items = [self._with_secrets(item, sections, (*path, index)) for index, item in enumerate(node.value)]
            return replace(node, value=items)
        if not isinstance(node.value, dict):
            return node
        children = dict(node.value)
        for key, info in keys_of(sections).items():
            if is_secret(info):
                self._take_file(children, key, path)
            elif is_private(info) and key in children:
                self._warn_if_others_read(children[key], (*path, key))
            elif key in children:
                children[key] = self._with_secrets(children[key], sections_of(info.annotation), (*path, key))
        return replace(node, value=children)

    def _take_file(self, children: dict[str, Node], key: str, path: KeyPath) -> None:
        node = children.pop(f"{key}_file", None)
        if node is None or node.value is None:
            return
        where = (*path, f"{key}_file")
        if key in children and children[key].value is not None:
            self._faults.report(node.source, where, f"is given beside {key}: keep one or the other")
            return
        secret = self._secret(node, where)
        if secret is not None:
            children[key] = Node(secret, node.source)

    def _secret(self, node: Node, where: KeyPath) -> str | None:
        """What the file holds, without the newline at its end."""
        text = problem = ""
        try:
            with self._named(node).open("rb") as file:
                raw = file.read(MAX_SECRET + 1)
            text = raw.decode().removesuffix("\n").removesuffix("\r")
            if not text:
                problem = "names an empty file"
            elif len(raw) > MAX_SECRET:
                problem = f"names a file of more than {MAX_SECRET} bytes"
        except FileNotFoundError:
            problem = "names a file that does not exist"
        except UnicodeDecodeError:
            problem = "names a file that is not UTF-8"
        except (OSError, ValueError, RuntimeError) as error:
            problem = f"names a file that cannot be read: {getattr(error, 'strerror', None) or 'no such path'}"
        if not problem:
            self._warn_if_others_read(node, where)
            return text
        self._faults.report(node.source, where, problem)
        # That the secret itself is missing only follows.
        self._faults.settle((*where[:-1], str(where[-1]).removesuffix("_file")))
        return None

    def _named(self, node: Node) -> Path:
        if not isinstance(node.value, str) or not node.value:
            raise ValueError("no path")
        return Path(self._folder, Path(node.value).expanduser())

    def _warn_if_others_read(self, node: Node, where: KeyPath) -> None:
        try:
            mode = os.stat(self._named(node)).st_mode
        except (OSError, ValueError, RuntimeError):
            return  # the model says so
        if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
            place = node.source.place if node.source.line is None else f"{node.source.place}:{node.source.line}"
            self._warnings.append(f"{place}: {dotted(where)}: other users may read this file: chmod 600 it")


def _children(tree: Node) -> dict[str, Node]:
    return dict(tree.value) if isinstance(tree.value, dict) else {}


def _sections_of_keys(roles: Roles) -> dict[str, list[type[Section]]]:
    """The top-level keys of roles, with the sections that stand below each."""
    keys: dict[str, list[type[Section]]] = {}
    for role in roles.values():
        for key, info in role.key_fields().items():
            if not role.inside or key in role.shared:
                keys[key] = sections_of(info.annotation)
        if role.inside:
            keys[role.declared_by] = [role]
    return keys
