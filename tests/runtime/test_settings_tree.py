"""The YAML file as a tree with marks: what is taken, what is refused, and where it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonevalue import settings_file
from bonevalue.config import ModuleEntry, PeerSettings
from bonevalue.errors import ConfigError, Fault
from bonevalue.settings_tree import MAX_NODES, Node, Source, node_of, parse
from tests.support.settings import PEER, ROLES, faults_of, peer_of, write


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("", "bonevalue.yaml: is empty"),
        ("# nothing\n", "bonevalue.yaml: is empty"),
        ("just words", "bonevalue.yaml:1: must be a mapping of keys to values"),
        ("- a\n- b\n", "bonevalue.yaml:1: must be a mapping of keys to values"),
        ("server: [1, 2\n", "bonevalue.yaml:2: is no YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b\n---\nc: d\n", "bonevalue.yaml:2: holds more than one YAML document"),
        ("a: 1\n? [x]\n: 2\n", "bonevalue.yaml:2: a key must be a word"),
        ("a: *nobody\n", "bonevalue.yaml:1: no such anchor: quote a value that begins with *"),
        ("a: &x [*x]\n", "bonevalue.yaml:1: no such anchor: quote a value that begins with *"),
        ("a: !!python/object:os.system x\n", "bonevalue.yaml:1: tags are not taken: quote a value that begins with !"),
        ("a: !secret!word\n", "bonevalue.yaml:1: is no YAML: quote a value that begins with !"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "bonevalue.yaml:3: merge keys (<<) are not taken"),
        ("a: " + "[" * 40 + "]" * 40, "bonevalue.yaml:1: is nested more than 32 deep"),
        ("a: b: c\n", "bonevalue.yaml:1: is no YAML: a colon where none may stand (quote the value if it holds one)"),
        ("a: 1\nb: \x07\n", "bonevalue.yaml:2: is no YAML: holds a control character"),
        ('a: "\\UFFFFFFFF"\n', "bonevalue.yaml:1: is no YAML"),
    ],
)
def test_what_is_no_yaml_mapping_is_one_fault(tmp_path: Path, text: str, report: str) -> None:
    assert faults_of(tmp_path, text) == [report]


def test_aliases_are_taken_but_not_a_bomb_of_them(tmp_path: Path) -> None:
    peer = peer_of(tmp_path, PEER + "pool: {connect_timeout: &t 7s, idle_timeout: *t}\n")
    assert (peer.pool.connect_timeout, peer.pool.idle_timeout) == (7.0, 7.0)
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))
    assert f"holds more than {MAX_NODES} values" in faults_of(tmp_path, bomb)[0]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"# " + b"x" * 2**20), "is larger than 1 MiB"),
        (lambda path: path.write_bytes(b"a: 1\nb: \xff\n"), "is not UTF-8 in line 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path, make: Callable[[Path], Any], problem: str) -> None:
    path = write(tmp_path, PEER)
    make(path)
    with pytest.raises(ConfigError) as caught:
        settings_file.load(path, ROLES, environ={})
    assert caught.value.faults == (Fault(str(path), None, "", problem),)
    with pytest.raises(ConfigError, match="no such path"):
        settings_file.load("a\0b", ROLES, environ={})


def test_plain_words_are_read_by_yaml_1_2() -> None:
    text = (
        "{a: no, b: 1:30, c: 0123, d: 1_000, e: 0x1F, f: 1.5, g: ~, h: 'true', i: TRUE, j: .inf, k: 1e3, l: 2026-01-01}"
    )
    tree = parse(text, place="x", report=lambda *fault: pytest.fail(str(fault)))
    assert tree is not None
    assert tree.plain == {
        "a": "no",
        "b": "1:30",
        "c": 123,
        "d": "1_000",
        "e": 31,
        "f": 1.5,
        "g": None,
        "h": "true",
        "i": True,
        "j": ".inf",
        "k": 1000.0,
        "l": "2026-01-01",
    }


def test_a_key_that_stands_twice_is_a_fault(tmp_path: Path) -> None:
    text = PEER + "pool:\n  heartbeat: 5s\n  idle_timeout: 9s\n  heartbeat: 6s\n"
    assert faults_of(tmp_path, text) == ["bonevalue.yaml:6: pool.heartbeat: stands twice; the first is in line 4"]


def test_a_byte_order_mark_and_null_are_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + PEER + "pool:\n  # heartbeat: 5s\nmodules: null\nice: {servers: ~}\n")
    peer = settings_file.load(path, ROLES, environ={}).get(PeerSettings)
    assert peer is not None
    assert (peer.pool.heartbeat, peer.modules, peer.ice.servers) == (5.0, (), ())


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=12,
    )
)
def test_a_tree_gives_back_the_value_it_was_made_of(value: Any) -> None:
    assert json.dumps(node_of(value, Source("x", 1)).plain) == json.dumps(value)


def test_the_line_of_what_is_missing_is_that_of_what_is_around_it() -> None:
    tree = Node({"a": Node({"b": Node(1, Source("f", 3))}, Source("f", 2))}, Source("f", 1))
    assert [tree.locate(path).line for path in [(), ("a",), ("a", "b"), ("a", "c"), ("a", 0), ("x", "y")]] == [
        *(1, 2, 3, 2, 2, 1)
    ]


# -- ${VAR} ----------------------------------------------------------------------------------------------------


def test_variables_are_replaced_in_any_value(tmp_path: Path) -> None:
    text = PEER + (
        "modules:\n  - {class: a.B, concurrency: '${N}', allow: ['${WHO:-bob}'], config: {url: 'http://${HOST}:${PORT:-80}/'}}\n"
        "  - {class: a.C, config: {text: '$${HOST} $HOST ${EMPTY:-x} ${EMPTY}.', list: ['${HOST}']}}\n"
    )
    peer = peer_of(tmp_path, text, {"N": "3", "HOST": "h${N}", "EMPTY": ""})
    first, second = peer.modules
    assert isinstance(first, ModuleEntry)
    assert isinstance(second, ModuleEntry)
    assert (first.concurrency, first.allow, first.config) == (3, ("bob",), {"url": "http://h${N}:80/"})
    assert second.config == {"text": "${HOST} $HOST x .", "list": ["h${N}"]}


def test_what_a_variable_holds_stays_text(tmp_path: Path) -> None:
    text = "server: {address: ws://127.0.0.1}\ncredentials: {username: admin, password: '${P}'}\n"
    assert peer_of(tmp_path, text, {"P": "0012345678"}).credentials.password.get_secret_value() == "0012345678"


def test_an_unset_variable_and_a_broken_one_are_faults(tmp_path: Path) -> None:
    text = PEER + "log:\n  level: ${UNSET}\n  format: ${broken\n"
    assert faults_of(tmp_path, text) == [
        "bonevalue.yaml:4: log.level: the environment variable UNSET is not set",
        "bonevalue.yaml:5: log.format: holds ${ without a name and }: "
        "write ${NAME}, ${NAME:-default}, or $${ for the text ${",
    ]
