"""What was measured, kept in one SQLite file under keys made of content: nothing is measured twice.

A cell is committed as soon as it is measured, so that a killed run loses at most the one that it was at.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import DocumentError, NoSpace, StoreError, UnknownCacheType
from turbotool.evaluation.cell import Configuration, Measured, Origin
from turbotool.evaluation.measurement import MeasurementDocument, measurement, of_version_1, restored
from turbotool.kv.cachetype import CachePair
from turbotool.kv.calibration import Calibration
from turbotool.kv.rotation import ROTATIONS
from turbotool.system.digest import sha256_file
from turbotool.system.documents import decode, encode
from turbotool.system.files import space_guard
from turbotool.system.output import Output

APPLICATION_ID = 0x7475_7262  # "turb": what `file` and we know the store by
SCHEMA_VERSION = 2  # version 1 had measurements without a header
SCHEMA = (
    "CREATE TABLE measured (key TEXT PRIMARY KEY, about TEXT NOT NULL, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE answers (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID",
    # so that a model of many GB is not read again by each command; as git's index, by size and time
    "CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT NOT NULL) WITHOUT ROWID",
)
TABLES = {"measured", "answers", "files"}
# what a key stands for, so that a model's measurements can be found without the text that they were made on; a table
# that older versions of turbotool pass over
CELLS = (
    "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY, binaries TEXT, model TEXT, corpus TEXT, ctx INTEGER, "
    "chunks INTEGER, k TEXT, v TEXT, rotation TEXT, calibration TEXT, calibration_sha256 TEXT) WITHOUT ROWID"
)
SIDE_FILES = ("", "-journal", "-wal", "-shm")


@dataclass(frozen=True)
class StoredCell:
    """A measurement in the store with what it was made of."""

    origin: Origin
    configuration: Configuration
    measured: Measured


@dataclass(frozen=True)
class Store:
    """An open store. Every write is durable when the call returns. Raises NoSpace, or StoreError if it cannot write."""

    path: Path
    connection: sqlite3.Connection

    def measured(self, key: str) -> Measured | None:
        """What was measured under the key; None if nothing was, or if the row is damaged or of a newer version."""
        row = self._row("SELECT value FROM measured WHERE key = ?", key)
        try:
            return restored(decode(str(row[0]), MeasurementDocument, self.path)) if row else None
        except DocumentError:
            return None

    def keep(self, key: str, about: str, measured: Measured) -> None:
        """Commit a measurement; `about` tells a person who reads the table what it is."""
        value = encode(measurement(measured), indent=None).decode()
        self._write("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", key, about, value)

    def describe(self, key: str, origin: Origin, configuration: Configuration) -> None:
        """Note what a key stands for, unless it is known."""
        if self._row("SELECT 1 FROM cells WHERE key = ?", key):
            return
        pair, calibration = configuration.pair, configuration.calibration
        of = (origin.binaries, origin.model, origin.corpus, origin.ctx, origin.chunks)
        cell = (pair.k, pair.v, configuration.rotation, calibration.name, calibration.sha256)
        self._write("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", key, *of, *cell)

    def cells(self, model: str) -> list[StoredCell]:
        """What was measured of the model with this sha256, as far as it was described; damaged rows are left out."""
        with _explained(self.path):
            rows = self.connection.execute("SELECT * FROM cells WHERE model = ? ORDER BY key", (model,)).fetchall()
        found = (_cell(row, self.measured(str(row[0]))) for row in rows)
        return [cell for cell in found if cell]

    def answer(self, key: str) -> str | None:
        row = self._row("SELECT text FROM answers WHERE key = ?", key)
        return str(row[0]) if row else None

    def keep_answer(self, key: str, text: str) -> None:
        self._write("INSERT OR REPLACE INTO answers VALUES (?, ?)", key, text)

    def sha256(self, path: Path) -> str:
        """The file's sha256; read again only if its size or time of change is not what it was."""
        if known := self.known_sha256(path):
            return known
        status = path.stat()
        found = sha256_file(path)
        self._write(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", str(path), status.st_size, status.st_mtime_ns, found
        )
        return found

    def known_sha256(self, path: Path) -> str | None:
        """The same without reading the file: None if it is not known as it is now."""
        status = path.stat()
        known = self._row(
            "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ?",
            str(path),
            status.st_size,
            status.st_mtime_ns,
        )
        return str(known[0]) if known else None

    def _row(self, query: str, *values: object) -> tuple[object, ...] | None:
        with _explained(self.path):
            row: tuple[object, ...] | None = self.connection.execute(query, values).fetchone()
            return row

    def _write(self, statement: str, *values: object) -> None:
        with _explained(self.path), self.connection:
            self.connection.execute(statement, values)


def _cell(row: tuple[object, ...], measured: Measured | None) -> StoredCell | None:
    binaries, model, corpus, ctx, chunks, k, v, rotation, calibration, sha256 = map(str, row[1:])
    if measured is None or rotation not in ROTATIONS:
        return None
    try:
        origin = Origin(binaries, model, corpus, int(ctx), int(chunks), sha256)
        configuration = Configuration(CachePair(k, v), rotation, Calibration(calibration, sha256=sha256))
    except (ValueError, UnknownCacheType):
        return None
    return StoredCell(origin, configuration, measured)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if "full" in str(error):  # SQLITE_FULL; its code has no name before Python 3.11
            raise NoSpace(
                f"no space left while writing {path}", hint="free some space on that disk, then run the command again"
            ) from error
        raise StoreError(f"{path}: {error}", hint=f"run the command again; if that fails, move {path} away") from error


@contextlib.contextmanager
def open_store(path: Path, out: Output) -> Iterator[Store]:
    """The store at `path`, made if it is not there, and brought to this version if an older one made it.

    A file that is no intact store is moved aside and said so.

    Raises StoreError if a newer version of turbotool made it or it cannot be opened, NoSpace. The caller makes sure
    that no other process does this at the same time.
    """
    with space_guard(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _explained(path):
        connection = _intact(path)
        if connection is None:
            aside = quarantine(path)
            out.warn(f"{path} is damaged; it is kept as {aside}, and a new one is begun")
            connection = _intact(path)
    if connection is None:
        raise StoreError(f"{path} cannot be written", hint=f"move {path} away and run the command again")
    try:
        yield Store(path, connection)
    finally:
        connection.close()


@contextlib.contextmanager
def look_into_store(path: Path) -> Iterator[Store | None]:
    """The store at `path` as it is, for reading, whoever writes it meanwhile; None where there is none of this version.

    Reading raises StoreError if it is damaged.
    """
    if not path.is_file():
        yield None
        return
    with _explained(path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    with contextlib.closing(connection):
        with _explained(path):
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        ours = (application, version) == (APPLICATION_ID, SCHEMA_VERSION) and tables >= {*TABLES, "cells"}
        yield Store(path, connection) if ours else None


def _intact(path: Path) -> sqlite3.Connection | None:
    """A connection to the store, or None if the file is not one, or is damaged."""
    connection = sqlite3.connect(path)
    try:
        sound = _prepared(connection, path)
    except sqlite3.OperationalError:  # locked, full, not to be opened: nothing is wrong with what it holds
        connection.close()
        raise
    except sqlite3.DatabaseError:
        sound = False
    except BaseException:
        connection.close()
        raise
    if not sound:
        connection.close()
    return connection if sound else None


def _prepared(connection: sqlite3.Connection, path: Path) -> bool:
    """Make the tables of a new file; whether those of an old one are ours and whole."""
    connection.execute("PRAGMA synchronous = FULL")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not tables and not application:
        with connection:
            connection.execute("BEGIN")
            for statement in (*SCHEMA, CELLS):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return True
    if application == APPLICATION_ID and version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {version}, newer than {SCHEMA_VERSION} of this turbotool",
            hint=f"use the newer turbotool, or move {path} away",
        )
    (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    sound = bool(application == APPLICATION_ID and tables >= TABLES and state == "ok")
    if sound:
        connection.execute(CELLS)
    if sound and version < SCHEMA_VERSION:
        _migrate(connection)
    return sound


def _migrate(connection: sqlite3.Connection) -> None:
    """Write what a store of version 1 holds as version 2 does, all of it or nothing; damaged rows stay as they are."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for key, value in connection.execute("SELECT key, value FROM measured").fetchall():
            if (today := of_version_1(str(value))) is not None:
                connection.execute("UPDATE measured SET value = ? WHERE key = ?", (today, key))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def quarantine(path: Path) -> Path:
    """Move a store and the files that belong to it aside, under the first name that is free."""
    number = 1
    while path.with_name(f"{path.name}.damaged-{number}").exists():
        number += 1
    aside = path.with_name(f"{path.name}.damaged-{number}")
    for suffix in SIDE_FILES:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
