"""From the ``modules:`` of the settings to what a peer serves: imports, drop-in folders, the modules' own settings."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from bonevalue import settings_file
from bonevalue.config import FolderEntry, ModuleEntry, PeerSettings
from bonevalue.errors import ConfigError
from bonevalue.module import Module
from bonevalue.serving import ServedModule
from bonevalue.settings_fields import starting_from
from bonevalue.settings_file import Loaded

__all__ = ["FaultSink", "load_modules", "load_peer_file", "modules_of"]

#: Path of a key of the settings, like ``("modules", 1, "class")``.
Key = tuple[str | int, ...]
#: Where faults go: the key, and what is wrong with it (a text, or what pydantic found below it).
FaultSink = Callable[[Key, str | ValidationError], None]


def load_modules(
    entries: Iterable[tuple[Key, ModuleEntry | FolderEntry]], folder: Path, fault: FaultSink
) -> list[ServedModule]:
    """
    Import, check and build all modules. Nothing is started.

    Args:
        entries: of the settings, each with its key.
        folder: that of the settings file; imports start from it.
        fault: told of everything that is wrong.
    """
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    builder = _Builder(folder, fault)
    folders = []
    with starting_from(folder):  # paths in the modules' own settings, too
        for key, entry in entries:
            if isinstance(entry, ModuleEntry):
                builder.add_class(key, entry)
            else:
                folders.append((key, entry))
        for key, entry in folders:  # last, so that they know what is listed
            builder.add_folder(key, entry)
    return builder.served


def load_peer_file(path: Path | str, *, environ: Mapping[str, str]) -> tuple[PeerSettings, list[ServedModule]]:
    """
    The peer that a YAML file describes: its settings, and its modules, not started.

    Raises:
        ConfigError: with every fault of the file and the modules.
    """
    loaded = settings_file.read(path, {"peer": PeerSettings}, environ=environ)
    modules = modules_of(loaded)
    loaded.faults.check()
    settings = loaded.get(PeerSettings)
    if settings is None:
        raise ConfigError(f"{path} describes no peer: it has no section `server`")
    return settings, modules


def modules_of(loaded: Loaded, role: str = "peer") -> list[ServedModule]:
    """The modules of a file that was read; what is wrong with them joins its faults."""

    def fault(key: Key, problem: str | ValidationError) -> None:
        if isinstance(problem, str):
            loaded.faults.add(key, problem)
        else:
            loaded.faults.add_errors(problem, key)

    return load_modules(loaded.sound(role, "modules"), loaded.folder, fault)


class _Builder:
    def __init__(self, folder: Path, fault: FaultSink) -> None:
        self.served: list[ServedModule] = []
        self._folder = folder
        self._fault = fault
        self._names: dict[str, Key] = {}
        self._listed: set[type[Module]] = set()

    def add_class(self, key: Key, entry: ModuleEntry) -> None:
        try:
            found = _find_class(entry.class_path, self._folder)
        except ConfigError as error:
            self._fault((*key, "class"), error.message)
            return
        self._listed.add(found)
        self._build(key, found, entry)

    def add_folder(self, key: Key, entry: FolderEntry) -> None:
        for path in sorted(Path(entry.folder).glob("*.py")):
            if path.name.startswith("_"):
                continue
            try:
                module = self._import_file(path)
            except ConfigError as error:
                self._fault((*key, "folder"), error.message)
                continue
            for name, found in list(vars(module).items()):
                own = _is_module_class(found) and found.__module__ == module.__name__
                if own and found.drop_in and not name.startswith("_") and found not in self._listed:
                    self._build(key, found, None)

    def _build(self, key: Key, found: type[Module], entry: ModuleEntry | None) -> None:
        name = (entry.name if entry is not None else None) or found.name
        if name.startswith("bv."):
            self._fault(key, f"the name {name!r} begins with bv., which is kept for the platform's own modules")
            return
        if name in self._names:
            self._fault(key, f"a second module named {name!r}; give one of them another name")
            return
        self._names[name] = key
        try:
            if entry is None:
                served = ServedModule(name, found({}))
            else:
                instance = found(dict(entry.config))
                served = ServedModule(name, instance, allow=entry.allow, concurrency=entry.concurrency, rate=entry.rate)
            self.served.append(served)
        except ValidationError as error:
            self._fault((*key, "config"), error)
        except ConfigError as error:
            self._fault(key, error.message)
        except Exception as error:
            self._fault(key, f"{found.__name__} cannot be made: {type(error).__name__}: {error}")

    def _import_file(self, path: Path) -> ModuleType:
        path = path.resolve()
        if path.is_relative_to(self._folder.resolve()):
            # The same file listed by its import path must give the same classes.
            relative = path.relative_to(self._folder.resolve()).with_suffix("")
            if all(part.isidentifier() for part in relative.parts):
                return _import(".".join(relative.parts), self._folder)
        spec = importlib.util.spec_from_file_location(f"bonevalue_dropin_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"cannot import {path.name}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[spec.name]
            raise ConfigError(_failed(path.name, error)) from error
        return module


def _find_class(import_path: str, folder: Path) -> type[Module]:
    """The class of ``a.b.C`` or ``a.b:C``."""
    module_name, separator, class_name = import_path.partition(":")
    if not separator:
        module_name, _, class_name = import_path.rpartition(".")
    module = _import(module_name, folder)
    found: Any = getattr(module, class_name, None)
    if found is None:
        known = [name for name, value in vars(module).items() if _is_module_class(value) and value is not Module]
        hint = f"; it has {', '.join(known)}" if known else ""
        raise ConfigError(f"{module_name} has no class {class_name}{hint}")
    if not _is_module_class(found):
        raise ConfigError(f"{import_path} is not a subclass of bonevalue.Module")
    return found  # type: ignore[no-any-return]


def _is_module_class(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Module) and value is not Module and hasattr(value, "handle")


def _import(name: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            where = folder.joinpath(*missing.split("."))
            raise ConfigError(f"cannot import {name}: no such file {where.relative_to(folder)}.py") from error
        raise ConfigError(f"cannot import {name}: it imports {missing}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(_failed(name, error)) from error


def _failed(name: str, error: BaseException) -> str:
    place = ""
    if isinstance(error, SyntaxError):
        place = f" in line {error.lineno}"
    elif error.__traceback__ is not None:
        last = error.__traceback__
        while last.tb_next is not None:
            last = last.tb_next
        place = f" in {Path(last.tb_frame.f_code.co_filename).name}:{last.tb_lineno}"
    return f"cannot import {name}: {type(error).__name__}{place}: {error}"
