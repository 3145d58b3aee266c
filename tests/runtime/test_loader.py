"""From `modules:` of the settings to served modules: imports, folders, names, and a clear word for each fault."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from bonevalue import Context
from bonevalue.errors import ConfigError, RateLimited
from bonevalue.loader import load_peer_file
from bonevalue.module import Caller
from bonevalue.serving import ServedModule
from tests.support.answers import FakeAnswer

_NUMBERS = itertools.count()

ECHO = """
from pydantic import BaseModel

from bonevalue import Module


class Echo(Module):
    \"\"\"Says it back.\"\"\"

    name = "My.Echo.Module"

    class Config(BaseModel):
        twist: str = "Not "

    async def handle(self, request, context):
        return {"text": self.config.twist + request["text"]}


class Second(Echo):
    name = "Second"


class _Private(Echo):
    name = "Private"
"""


class Deployment:
    """A settings file and modules in a package of a name that no other test has imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.package = f"mods{next(_NUMBERS)}"
        self.write("echo", ECHO)

    def write(self, name: str, source: str) -> None:
        path = self.folder / self.package / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)

    def load(self, modules: str) -> list[ServedModule]:
        file = self.folder / "bonevalue.yaml"
        lines = modules.replace("PKG", self.package)
        file.write_text(
            "server: {address: ws://127.0.0.1:1}\ncredentials: {username: a, password: b}\nmodules:\n" + lines
        )
        return load_peer_file(file, environ={})[1]

    def faults(self, modules: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(modules)
        return [str(fault).split("bonevalue.yaml:", 1)[1].replace(self.package, "PKG") for fault in caught.value.faults]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def source(module: ServedModule) -> Any:
    return module.source


def test_short_and_long_form(deployment: Deployment) -> None:
    one, two = deployment.load(
        " - PKG.echo.Echo\n"
        " - {class: PKG.echo:Echo, name: Team.Echo, allow: [Us, bob], concurrency: 2, config: {twist: 'So '}}\n"
    )
    assert (one.name, two.name) == ("My.Echo.Module", "Team.Echo")
    assert source(one).config.twist == "Not " and source(two).config.twist == "So "
    assert two.allow == {"Us", "bob"} and one.doc == "Says it back."


async def test_limits_of_an_entry_are_those_of_the_module(deployment: Deployment) -> None:
    (module,) = deployment.load(" - {class: PKG.echo.Echo, allow: [bob], rate: 0.001}\n")
    context = Context(Caller("bob", "1", bytes(32), ""), 0.0, module.name)
    answer = FakeAnswer()
    await module.run(b'{"text": "Friday"}', False, context, answer)
    assert answer.came == [{"text": "Not Friday"}]
    with pytest.raises(RateLimited):
        await module.run(b'{"text": "Friday"}', False, context, answer)


def test_a_folder_gives_what_is_not_listed(deployment: Deployment) -> None:
    deployment.write("_hidden", "raise RuntimeError")
    names = [module.name for module in deployment.load(" - {folder: PKG}\n - PKG.echo.Second\n")]
    assert sorted(names) == ["My.Echo.Module", "Second"]


def test_a_folder_elsewhere_works_too(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / f"{deployment.package}_far-away.py").write_text(ECHO.replace("My.Echo.Module", "Far.Echo"))
    assert "Far.Echo" in [module.name for module in deployment.load(f" - folder: {elsewhere}\n")]


@pytest.mark.parametrize(
    ("modules", "fault"),
    [
        (" - PKG.fles.Files\n", "4: modules[0].class: cannot import PKG.fles: no such file PKG/fles.py"),
        (" - PKG.echo.Eco\n", "4: modules[0].class: PKG.echo has no class Eco; it has Echo, Second, _Private"),
        (" - PKG.echo.BaseModel\n", "4: modules[0].class: PKG.echo.BaseModel is not a subclass of bonevalue.Module"),
        (
            " - {class: PKG.echo.Echo, config: {twist: [1]}}\n",
            "4: modules[0].config.twist: must be text: put it in quotes",
        ),
        (
            " - PKG.echo.Echo\n - PKG.echo.Echo\n",
            "5: modules[1]: a second module named 'My.Echo.Module'; give one of them another name",
        ),
    ],
)
def test_each_fault_has_its_line(deployment: Deployment, modules: str, fault: str) -> None:
    (found,) = deployment.faults(modules)
    assert found == fault


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nonsense_package", "it imports nonsense_package, which is not installed"),
        ("def broken(:", "SyntaxError in line 1"),
        ("1 / 0", "ZeroDivisionError in bad.py:1: division by zero"),
        ("import sys\nsys.exit(3)", "SystemExit in bad.py:2: 3"),
    ],
)
def test_what_goes_wrong_inside_the_file_is_told_apart(deployment: Deployment, code: str, message: str) -> None:
    deployment.write("bad", code)
    (found,) = deployment.faults(" - PKG.bad.Thing\n")
    assert message in found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    async def handle(self):\n        pass", "must take (request) or (request, context)"),
        ("    async def handle(self, request) -> int:\n        yield 1", "has a yield: it returns AsyncIterator[...]"),
        ("    async def handle(self, request: 'Nothing'):\n        pass", "cannot be resolved"),
        ("    name = 'bv.mine'\n    async def handle(self, request):\n        pass", "begins with bv."),
        (
            "    def __init__(self, config=None):\n        raise OSError('no disk')\n"
            "    async def handle(self, request):\n        pass",
            "Thing cannot be made: OSError: no disk",
        ),
    ],
)
def test_a_class_that_cannot_be_served(deployment: Deployment, body: str, message: str) -> None:
    deployment.write("bad", f"from bonevalue import Module\n\n\nclass Thing(Module):\n{body}\n")
    (found,) = deployment.faults(" - PKG.bad.Thing\n")
    assert message in found


def test_config_for_a_class_that_takes_none(deployment: Deployment) -> None:
    deployment.write(
        "plain",
        "from bonevalue import Module\n\n\nclass Plain(Module):\n    async def handle(self, request):\n        pass\n",
    )
    (found,) = deployment.faults(" - {class: PKG.plain.Plain, config: {a: 1}}\n")
    assert "takes no config" in found


def test_all_faults_come_together(deployment: Deployment) -> None:
    found = deployment.faults(" - PKG.fles.Files\n - PKG.echo.Eco\n - {class: PKG.echo.Echo, concurrency: 0}\n")
    assert [fault.split(":")[0] for fault in found] == ["4", "5", "6"]


def test_models_beside_handle_in_the_class_are_found(deployment: Deployment) -> None:
    deployment.write(
        "typed",
        "from __future__ import annotations\n\nfrom pydantic import BaseModel\n\nfrom bonevalue import Module\n\n\n"
        "class Typed(Module):\n"
        "    class Order(BaseModel):\n        item: str\n\n"
        "    async def handle(self, request: Order) -> list[str]:\n        return [request.item]\n",
    )
    (module,) = deployment.load(" - PKG.typed.Typed\n")
    assert module.request_schema is not None and module.request_schema["required"] == ["item"]
    assert module.response_schema == {"items": {"type": "string"}, "type": "array"}
