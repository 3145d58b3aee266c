"""The database when something is wrong with it: locked, full, read-only, foreign, newer, or killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event

from bonevalue.errors import ConfigError, Unavailable
from bonevalue_server import database, schema
from bonevalue_server.store import Store
from tests.support.accounts import enrol


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/server.db"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(url_of(tmp_path), realm="example.org")
    yield opened
    await opened.close()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the write lock as another process would."""
    with contextlib.closing(sqlite3.connect(folder / "server.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def longest_stall(stop: asyncio.Event) -> float:
    """The longest time in which the event loop did nothing else."""
    loop, longest = asyncio.get_running_loop(), 0.0
    while not stop.is_set():
        before = loop.time()
        await asyncio.sleep(0.01)
        longest = max(longest, loop.time() - before)
    return longest


# -- how it is opened --------------------------------------------------------------------------------------------


async def test_every_connection_is_durable_and_enforces_references(store: Store) -> None:
    def ask(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert await store.database.write(ask) == ["wal", 2, 1, 3000]
    assert await store.database.read(ask) == ["wal", 2, 1, 3000]


async def test_a_database_that_is_not_durable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database._PRAGMAS, "synchronous", ("OFF", 2))
    with pytest.raises(ConfigError, match="synchronous is 0 here, not 2"):
        await Store.open(url_of(tmp_path), realm="example.org")


@pytest.mark.parametrize("patience", [0, 4.5, 5])
async def test_patience_leaves_time_to_answer(tmp_path: Path, patience: float) -> None:
    with pytest.raises(ValueError, match="patience"):
        await Store.open(url_of(tmp_path), realm="example.org", patience=patience)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("server.db", "not a database URL"),
        ("", "not a database URL"),
        ("postgresql://u:secret@db/bv", "not supported"),
        ("sqlite+aiosqlite:///x.db", "not supported"),
        ("sqlite://", "names a file"),
        ("sqlite:///:memory:", "names a file"),
        ("sqlite:///file:x.db", "names a file"),
        ("sqlite:///x.db?mode=ro", "names a file"),
        ("sqlite://host/x.db", "names a file"),
        ("sqlite:////no/such/folder/x.db", "No such file"),
        ("sqlite:////", "directory"),
    ],
)
async def test_a_url_that_is_none_of_ours_is_refused(url: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        await Store.open(url, realm="example.org")
    assert "secret" not in caught.value.message


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    content = b"This is somebody's letter, and no database. " * 100
    (tmp_path / "server.db").write_bytes(content)
    with pytest.raises(ConfigError, match="not a database"):
        await Store.open(url_of(tmp_path), realm="example.org")
    assert (tmp_path / "server.db").read_bytes() == content


async def test_nothing_is_created_unless_wanted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        await Store.open(url_of(tmp_path), realm="example.org", create=False)
    assert os.listdir(tmp_path) == []


async def test_any_folder_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "50% of #1 & naïve"
    os.mkdir(folder)
    store = await Store.open(url_of(folder), realm="example.org")
    await enrol(store, "alice")
    await store.close()
    assert "server.db" in os.listdir(folder)


async def test_another_realm_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'example\.org'.*'example\.net'"):
        await Store.open(url_of(tmp_path), realm="example.net")
    again = await Store.open(url_of(tmp_path), realm="example.org")
    await again.close()


async def test_two_that_make_it_at_once_make_one(tmp_path: Path) -> None:
    stores = await asyncio.gather(*(Store.open(url_of(tmp_path), realm="example.org") for _ in range(4)))
    assert len({store.secret for store in stores}) == 1
    for store in stores:
        await store.close()


async def test_a_locked_database_is_no_fault_of_the_settings(store: Store, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(Unavailable):
        await Store.open(url_of(tmp_path), realm="example.org", patience=0.1)


# -- the schema ----------------------------------------------------------------------------------------------------


def tables(path: Path) -> dict[str, object]:
    """All that SQLite knows of the tables, whatever the order in which they were declared."""
    found: dict[str, object] = {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            indexes = {
                row[1]: (row[2], [column[2] for column in connection.execute(f"PRAGMA index_info({row[1]})")])
                for row in connection.execute(f"PRAGMA index_list({name})")
            }
            [sql] = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", [name]).fetchone()
            constraints = sorted(part.strip().rstrip(",") for part in (sql or "").splitlines() if "CONSTRAINT" in part)
            found[name] = {
                "columns": sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({name})")),
                "references": sorted(row[2:] for row in connection.execute(f"PRAGMA foreign_key_list({name})")),
                "indexes": indexes,
                "constraints": constraints,
                "autoincrement": "AUTOINCREMENT" in (sql or ""),
            }
    found.pop("alembic_version", None)
    return found


async def test_the_migrations_lead_to_the_schema_of_the_code(store: Store, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/direct.db")
    schema.metadata.create_all(engine)
    engine.dispose()
    await store.close()
    assert tables(tmp_path / "server.db") == tables(tmp_path / "direct.db")


async def test_a_newer_schema_is_refused_and_left_alone(store: Store, tmp_path: Path) -> None:
    await store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "server.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(ConfigError, match=r"schema 9999 .*newer version.*0001"):
        await Store.open(url_of(tmp_path), realm="example.org")


_KILLED_WHILE_MIGRATING = """
import asyncio, os, sys
from alembic import op
from bonevalue_server.store import Store
create, made = op.create_index, 0
def create_and_die(*arguments, **options):
    global made
    create(*arguments, **options)
    made += 1
    if made == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
op.create_index = create_and_die
asyncio.run(Store.open(sys.argv[1], realm="example.org"))
"""


@pytest.mark.parametrize("after", ["1", "4"])
async def test_a_migration_that_was_killed_starts_over(tmp_path: Path, after: str) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", _KILLED_WHILE_MIGRATING, url_of(tmp_path), after)
    assert await child.wait() == -9
    store = await Store.open(url_of(tmp_path), realm="example.org")
    await enrol(store, "alice")
    await store.close()


# -- when it is away -----------------------------------------------------------------------------------------------


async def test_a_lock_answers_unavailable_in_time_and_reads_go_on(store: Store, tmp_path: Path) -> None:
    alice = await enrol(store, "alice")
    stop = asyncio.Event()
    stalls = asyncio.create_task(longest_stall(stop))
    with locked(tmp_path):
        began = time.monotonic()
        writes = [asyncio.create_task(enrol(store, f"p{number}")) for number in range(20)]
        assert await store.account("alice") == alice.account
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        took = time.monotonic() - began
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert took < 5
    # Whoever was told "no" stays out, also once the lock is gone; and it is all as before.
    await enrol(store, "bob")
    assert [account.username for account in await store.accounts()] == ["alice", "bob"]
    stop.set()
    assert await stalls < 1


async def test_a_short_lock_is_waited_for(store: Store, tmp_path: Path) -> None:
    with locked(tmp_path):
        write = asyncio.create_task(enrol(store, "alice"))
        await asyncio.wait({write}, timeout=0.3)
        assert not write.done()
    await write


@pytest.mark.parametrize(
    ("pragma", "what"), [("query_only = ON", "read-only"), ("max_page_count = 1", "full")], ids=["read-only", "full"]
)
async def test_a_full_or_read_only_disk_is_unavailable_and_gets_well(store: Store, pragma: str, what: str) -> None:
    # Both settings die with their connection, as the real thing does when somebody makes room.
    await store.database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA {pragma}"))
    with pytest.raises(Unavailable):
        for number in range(1000):
            await enrol(store, f"p{number}")
    before = [account.username for account in await store.accounts()]
    alice = await enrol(store, "alice")
    assert [account.username for account in await store.accounts()] == sorted([*before, "alice"])
    assert await store.account("alice") == alice.account


async def test_a_failed_write_leaves_nothing(store: Store) -> None:
    def half(connection: Connection) -> None:
        connection.execute(schema.accounts.insert().values(username="half", public_key=b"k", login_hash="h", created=0))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.database.write(half)
    assert await store.accounts() == []


async def test_a_write_that_comes_too_late_is_undone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LONGEST", 0.2)

    def slow(connection: Connection) -> None:
        connection.execute(schema.accounts.insert().values(username="late", public_key=b"k", login_hash="h", created=0))
        time.sleep(0.4)

    with pytest.raises(Unavailable):
        await store.database.write(slow)
    with pytest.raises(Unavailable):
        await store.database.read(lambda _: time.sleep(0.4))
    monkeypatch.undo()
    await enrol(store, "alice")
    assert [account.username for account in await store.accounts()] == ["alice"]


async def test_a_caller_that_is_cancelled_harms_nobody(store: Store, tmp_path: Path) -> None:
    with locked(tmp_path):
        writes = [asyncio.create_task(enrol(store, f"p{number}")) for number in range(4)]
        await asyncio.sleep(0)
        for write in writes:
            write.cancel()
        await asyncio.wait(writes)
    await enrol(store, "alice")
    assert "alice" in [account.username for account in await store.accounts()]


async def test_reads_at_once_share_a_transaction_and_nothing_else(store: Store) -> None:
    alice = await enrol(store, "alice")
    begun: list[object] = []
    event.listen(store.database._readers._engine, "begin", begun.append)

    async def wrong() -> None:
        await store.database.read(lambda _: 1 // 0)

    reads = [store.account("alice"), wrong(), *(store.account("nobody") for _ in range(20)), store.account("alice")]
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert answers[0] == answers[-1] == alice.account
    assert isinstance(answers[1], ZeroDivisionError)
    assert answers[2:-1] == [None] * 20
    assert len(begun) < len(reads) / 2


async def test_a_read_sees_all_that_was_written_before_it_was_asked(store: Store) -> None:
    async def write_then_read(name: str) -> bool:
        await enrol(store, name)
        return await store.account(name) is not None

    assert all(await asyncio.gather(*(write_then_read(f"p{number}") for number in range(20))))


async def test_reads_fail_together_with_the_database_and_get_well(store: Store) -> None:
    def broken(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT * FROM no_such_table")

    answers = await asyncio.gather(*(store.database.read(broken) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert await store.accounts() == []


async def test_a_closed_database_is_unavailable(store: Store) -> None:
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await store.accounts()
    with pytest.raises(Unavailable, match="closed"):
        await enrol(store, "alice")


async def test_closing_lets_a_running_write_end(store: Store, tmp_path: Path) -> None:
    write = asyncio.create_task(enrol(store, "alice"))
    await asyncio.sleep(0)
    await store.close()
    await write
    again = await Store.open(url_of(tmp_path), realm="example.org")
    assert await again.account("alice") is not None
    await again.close()
