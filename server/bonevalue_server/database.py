"""
One database, and the only two things done with it: a read and a write, each one transaction, each bounded in time.

What stands between the callers and SQLite:

- Every transaction runs from beginning to end in one of a few threads; the event loop never waits for a disk or a
  lock. (An asynchronous driver does the same with a thread hop for every statement: measured here, a read of one
  account took 1.5 ms of CPU through SQLAlchemy's asyncio layer and aiosqlite, and takes 0.45 ms this way.)
- Reads that come at the same time share a transaction.
- Writes queue in this process and run one after the other, each in ``BEGIN IMMEDIATE``, so that a transaction never
  finds out halfway that somebody else wrote. SQLite's own lock is needed only against other processes.
- A caller gets its answer or :class:`~bonevalue.errors.Unavailable` in :data:`LONGEST` seconds. A write that becomes
  ready later than that is rolled back, since its caller was already told that nothing happened. (Only a COMMIT that
  itself takes longer, on a disk that hangs, can succeed unheard: no database can promise more.)
- A caller that is cancelled leaves the transaction to end by itself: no connection is ever torn out of a statement.
- After any fault the connections are thrown away; the next call opens new ones. So whatever was wrong (lock, full or
  read-only disk, replaced file), the store works again as soon as the database does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bonevalue.errors import ConfigError, Unavailable

__all__ = ["LONGEST", "Database"]

Result = TypeVar("Result")

#: Seconds in which every read and write answers.
LONGEST = 4.5
#: Seconds to wait for another process to finish its write; leaves time to roll back and answer within LONGEST.
PATIENCE = 3.0
READERS = 2
#: Most reads that share a transaction.
_BATCH = 64

#: What a connection is set to, and must say it is: durable after each COMMIT, also when the machine loses power.
_PRAGMAS: dict[str, tuple[str, str | int]] = {
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),
    "foreign_keys": ("ON", 1),
}
_FAULTS = (SQLAlchemyError, sqlite3.Error, OSError)

log = logging.getLogger(__name__)


class Database:
    """
    An SQLite file.

    Args:
        path: of the file; made (readable by its owner only) if it is not there.
        patience: seconds to wait for a lock that another process holds.
    """

    def __init__(self, path: Path, *, patience: float = PATIENCE) -> None:
        if not 0 < patience < LONGEST:
            raise ValueError(f"patience is more than 0 and less than {LONGEST} seconds")
        self.path = path
        self._patience = patience
        self._writer = _Writer(self._engine("BEGIN IMMEDIATE", connections=1), threads=1, name="writer")
        self._readers = _Reader(self._engine("BEGIN", connections=READERS), threads=READERS, name="reader")

    @classmethod
    async def open(cls, url: str, *, create: bool = True, patience: float = PATIENCE) -> Database:
        """
        Open the database of a URL and see that its writes are durable.

        Args:
            url: ``sqlite:///path``.
            create: make the file if it is not there.
            patience: seconds to wait for a lock that another process holds.

        Raises:
            ConfigError: no URL of ours, no folder or rights, or a file that is no database.
            Unavailable: another process has it locked.
        """
        path = _path_of(url)
        try:
            # Passwords are bcrypt in there, but the graph of who trusts whom is nobody else's business either.
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600))
        except OSError as error:
            raise ConfigError(f"database: cannot open {path}: {error.strerror}") from error
        database = cls(path, patience=patience)
        try:
            await database.write(lambda connection: connection.exec_driver_sql("SELECT 1 FROM sqlite_master"))
        except Unavailable as error:
            await database.close()
            if error.__cause__ is None or "locked" in str(error.__cause__):
                raise
            raise ConfigError(f"database: {path} cannot be used: {_reason(error.__cause__)}") from error
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Let running transactions end, then close all connections; idempotent."""
        for side in (self._readers, self._writer):
            await asyncio.to_thread(side.close)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """
        Run ``work`` in a transaction that sees one moment of the database.

        Raises:
            Unavailable: the database cannot now.
        """
        return await _in_time(self._readers.submit(work, time.monotonic() + LONGEST), LONGEST)

    async def write(self, work: Callable[[Connection], Result], *, bounded: bool = True) -> Result:
        """
        Run ``work`` in a transaction that no other write runs beside; it is on the disk on return.

        Whatever ``work`` raises undoes everything and is raised here.

        Args:
            work: runs in a thread of the database's.
            bounded: False for the schema's migrations, which take as long as they take.

        Raises:
            Unavailable: the database cannot now; nothing was done.
        """
        seconds = LONGEST if bounded else None
        deadline = None if seconds is None else time.monotonic() + seconds
        return await _in_time(self._writer.submit(work, deadline), seconds)

    def _engine(self, begin: str, *, connections: int) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),  # and not a text, in which some characters mean something
            # Without this, Python's module begins transactions by itself, late and never IMMEDIATE.
            connect_args={"timeout": self._patience, "isolation_level": None},
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
        )
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine


class _Side:
    """The reading or the writing side: as many threads as connections."""

    def __init__(self, engine: Engine, *, threads: int, name: str) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"database-{name}")
        self._closed = False

    def close(self) -> None:
        """Let everything that was submitted end."""
        self._closed = True
        self._threads.shutdown(wait=True)
        self._engine.dispose()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the database is closed")

    def _failed(self, error: Exception) -> Unavailable:
        """What callers are told of a fault; the next transaction starts on new connections."""
        log.warning("database: %s", _reason(error))
        self._engine.dispose()
        unavailable = Unavailable("the database cannot do this now", retry_after=LONGEST)
        unavailable.__cause__ = error
        return unavailable


class _Writer(_Side):
    """A transaction for each write, one after the other."""

    def submit(self, work: Callable[[Connection], Result], deadline: float | None) -> asyncio.Future[Result]:
        """Have ``work`` done and committed by the deadline (monotonic), or not at all."""
        self._check_open()
        return asyncio.get_running_loop().run_in_executor(self._threads, self._run, work, deadline)

    def _run(self, work: Callable[[Connection], Result], deadline: float | None) -> Result:
        try:
            _check_time(deadline)
            with self._engine.begin() as connection:
                result = work(connection)
                _check_time(deadline)
                return result
        except _FAULTS as error:
            raise self._failed(error) from error


class _Reader(_Side):
    """
    A transaction for all reads that wait when a thread gets to them.

    Nobody sees the difference, since each saw the database as it was at some moment after it had asked. When thousands
    come back at once, it halves what their logins cost.
    """

    def __init__(self, engine: Engine, *, threads: int, name: str) -> None:
        super().__init__(engine, threads=threads, name=name)
        self._most = threads
        self._active = 0
        self._waiting: deque[_Read[Any]] = deque()

    def submit(self, work: Callable[[Connection], Result], deadline: float) -> asyncio.Future[Result]:
        """Have ``work`` done by the deadline (monotonic)."""
        self._check_open()
        loop = asyncio.get_running_loop()
        read = _Read(work, deadline, loop.create_future())
        self._waiting.append(read)
        self._start(loop)
        return read.answer

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and self._active < self._most and not self._closed:
            self._active += 1
            self._threads.submit(self._work, loop)

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        self._active -= 1
        self._start(loop)  # for what came after the thread had looked for the last time

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run in a thread, until nothing waits."""
        with contextlib.suppress(RuntimeError):  # the loop was closed before the database: nobody listens
            while batch := self._take():
                loop.call_soon_threadsafe(_deliver, batch, self._run(batch))
            loop.call_soon_threadsafe(self._ended, loop)

    def _take(self) -> list[_Read[Any]]:
        batch: list[_Read[Any]] = []
        with contextlib.suppress(IndexError):
            while len(batch) < _BATCH:
                batch.append(self._waiting.popleft())
        return batch

    def _run(self, batch: list[_Read[Any]]) -> list[tuple[Any, Exception | None]]:
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            with self._engine.begin() as connection:
                for read in batch:
                    outcomes.append(read.run(connection))
        except _FAULTS as error:
            unavailable = self._failed(error)
            outcomes += [(None, unavailable)] * (len(batch) - len(outcomes))
        return outcomes


class _Read(Generic[Result]):
    """One read that waits for its answer."""

    __slots__ = ("_deadline", "_work", "answer")

    def __init__(self, work: Callable[[Connection], Result], deadline: float, answer: asyncio.Future[Result]) -> None:
        self._work = work
        self._deadline = deadline
        self.answer = answer

    def run(self, connection: Connection) -> tuple[Any, Exception | None]:
        """The result or why there is none; faults of the database are raised."""
        try:
            _check_time(self._deadline)
            return self._work(connection), None
        except _FAULTS:
            raise
        except Exception as error:
            return None, error


def _deliver(batch: list[_Read[Any]], outcomes: list[tuple[Any, Exception | None]]) -> None:
    for read, (result, error) in zip(batch, outcomes, strict=True):
        if read.answer.done():
            continue  # its caller waited too long, or is gone
        if error is None:
            read.answer.set_result(result)
        else:
            read.answer.set_exception(error)


async def _in_time(answer: asyncio.Future[Result], seconds: float | None) -> Result:
    try:
        await asyncio.wait({answer}, timeout=seconds)
        if not answer.done():
            raise Unavailable("the database does not answer", retry_after=LONGEST)
        return answer.result()
    finally:
        answer.cancel()  # takes it out of the queue; what runs already ends by itself, and finds its time over


def _check_time(deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise Unavailable("the database was too slow", retry_after=LONGEST)


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    """Set a new connection up, and see that it is as it was set."""
    for name, (value, expected) in _PRAGMAS.items():
        connection.execute(f"PRAGMA {name}={value}")
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != expected:
            raise sqlite3.NotSupportedError(f"{name} is {found!r} here, not {expected!r}")
    (milliseconds,) = connection.execute("PRAGMA busy_timeout").fetchone()
    if not 0 < milliseconds < 5000:
        raise sqlite3.NotSupportedError(f"busy_timeout is {milliseconds} ms, not under 5000")


def _path_of(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("database: not a database URL: write sqlite:///bonevalue.db") from None
    if parsed.drivername != "sqlite":
        raise ConfigError(f"database: {parsed.drivername}:// is not supported: write sqlite:///bonevalue.db")
    if parsed.host or parsed.query or not parsed.database or parsed.database.startswith((":", "file:")):
        raise ConfigError("database: an SQLite URL names a file and nothing else: sqlite:///bonevalue.db")
    return Path(parsed.database).absolute()


def _reason(error: BaseException | None) -> str:
    """The driver's own words, without SQLAlchemy's statement and parameters (which are nobody's to log)."""
    return str(getattr(error, "orig", None) or error)
