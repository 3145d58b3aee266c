"""`bv init`, `bv check`, `bv config`: everything about the settings file, offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Bv
from tests.support.processes import PASSWORD, both_roles, peer_role, write_module, write_yaml


def test_init_writes_what_check_finds_right(bv: Bv, folder: Path) -> None:
    made = bv("init")
    assert made.code == 0
    assert "bv-run bonevalue.yaml" in made.stdout
    checked = bv("check")
    assert (checked.code, checked.stderr) == (0, "")
    assert "My.Echo.Module" in checked.stdout


def test_init_keeps_the_password_to_its_owner(bv: Bv, folder: Path) -> None:
    assert bv("init", "first").code == 0
    assert bv("init", "second").code == 0
    passwords = []
    for name in ("first", "second"):
        path = folder / name / "bonevalue.yaml"
        assert path.stat().st_mode & 0o077 == 0
        content = yaml.safe_load(path.read_text())
        assert content["credentials"]["password"] == content["discovery"]["accounts"][0]["password"]
        passwords.append(content["credentials"]["password"])
    assert passwords[0] != passwords[1]
    assert all(len(password) >= 20 for password in passwords)


@pytest.mark.parametrize("existing", ["bonevalue.yaml", "modules/echo.py"])
def test_init_never_overwrites(bv: Bv, folder: Path, existing: str) -> None:
    (folder / existing).parent.mkdir(exist_ok=True)
    (folder / existing).write_text("mine")
    refused = bv("init")
    assert refused.code == 1
    assert refused.faults == [f"bv: file_exists: {existing} exists already, and nothing is overwritten"]
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / existing]
    assert (folder / existing).read_text() == "mine"


def test_init_where_nothing_can_be_written(bv: Bv, folder: Path) -> None:
    (folder / "file").write_text("")
    refused = bv("init", "file/below")
    assert refused.code == 1
    assert len(refused.faults) == 1
    assert refused.stderr.startswith("bv: cannot_write: ")


def test_init_for_programs(bv: Bv, folder: Path) -> None:
    assert bv("init", "--json").json == [{"wrote": "bonevalue.yaml"}, {"wrote": "modules/echo.py"}]


def test_check_tells_every_fault_at_once(bv: Bv, folder: Path) -> None:
    write_module(folder)
    (folder / "bonevalue.yaml").write_text(
        "server:\n"
        "  adress: ws://127.0.0.1:1\n"
        "credentials: {username: admin, password: x}\n"
        "modules:\n"
        "  - modules.fles.Files\n"
        "  - {class: modules.echo.Echo, config: {twist: 1}}\n"
        "ice: {servers: [{urls: http://stun.example.org}]}\n"
        "pool: {idle_timeout: soon}\n"
    )
    checked = bv("check")
    assert checked.code == 2
    assert checked.stdout == ""
    lines = [line.split(": ")[:2] for line in checked.faults]
    assert ["bonevalue.yaml:2", "server.adress"] in lines
    assert ["bonevalue.yaml:5", "modules[0].class"] in lines
    assert any(place == "bonevalue.yaml:6" for place, _ in lines)
    assert any(place == "bonevalue.yaml:7" and key.startswith("ice.servers[0].urls") for place, key in lines)
    assert ["bonevalue.yaml:8", "pool.idle_timeout"] in lines
    assert "did you mean address?" in checked.stderr


def test_check_for_programs(bv: Bv, folder: Path) -> None:
    write_yaml(folder / "bonevalue.yaml", peer_role(1, modules=["modules.fles.Files"]))
    *faults, summary = bv("check", "--json").json
    assert [fault["fault"]["key"] for fault in faults] == ["modules[0].class"]
    assert summary == {"ok": False, "roles": ["peer"], "modules": []}


def test_check_warns_of_a_secret_that_others_read(bv: Bv, folder: Path) -> None:
    (folder / "secret").write_text(PASSWORD)
    (folder / "secret").chmod(0o644)
    content = peer_role(1)
    content["credentials"] = {"username": "admin", "password_file": "secret"}
    write_yaml(folder / "bonevalue.yaml", content)
    checked = bv("check")
    assert checked.code == 0
    assert [line for line in checked.faults if line.startswith("warning: ") and "password_file" in line]


def test_config_masks_secrets(bv: Bv, folder: Path) -> None:
    write_yaml(folder / "bonevalue.yaml", both_roles(8123))
    for arguments in ((), ("--json",)):
        shown = bv("config", *arguments)
        assert shown.code == 0
        assert PASSWORD not in shown.stdout
    settings = json.loads(bv("config", "--json").stdout)
    assert settings["server"]["address"] == "ws://127.0.0.1:8123"
    assert settings["pool"]["max_outgoing"] == 64
    assert yaml.safe_load(bv("config").stdout) == settings


def test_config_counts_the_environment_in(bv: Bv, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_yaml(folder / "bonevalue.yaml", peer_role(8123))
    monkeypatch.setenv("BV_POOL__MAX_OUTGOING", "3")
    assert json.loads(bv("config", "--json").stdout)["pool"]["max_outgoing"] == 3


def test_config_schema_needs_no_file(bv: Bv, folder: Path) -> None:
    schema = json.loads(bv("config", "--schema").stdout)
    assert {"server", "credentials", "modules", "discovery", "log"} <= schema["properties"].keys()
