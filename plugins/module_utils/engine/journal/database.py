# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The database file: opened, made or brought to this engine's schema, checked (invariant I7), and written whole or not at all.

The only file that imports sqlite3. The files beside it hold what is asked and told, each for its tables, on top of `_read` and `_write`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator

from . import digests
from .head import Head
from .rows import Unreadable
from .schema import ADDED, SCHEMA, TABLES
from .unusable import damaged, too_new, unwritable

PATH = "/var/lib/acid/journal.db"
# How long a call waits for another process's write, in seconds: all writes here are short.
BUSY_WAIT = 10.0
# What SQLite, and Python's way to it, say of damage: in the tree, in a row, in text that is no UTF-8.
_SIGNS = ("malformed", "not a database", digests.FAILED, "Could not decode", "user-defined function raised")


class Database:
    """Opens the journal at `path`, making it (0600 in a 0700 directory) when it is not there."""

    def __init__(self, path: str = PATH, *, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.RLock()
        self._head = Head(os.path.splitext(path)[0] + ".head")
        with _explained(path):
            _make_private(path)
            self._db = sqlite3.connect(path, timeout=BUSY_WAIT, isolation_level=None, check_same_thread=False)
            try:
                self._set_up()
            except BaseException:
                self._db.close()
                raise

    def _set_up(self) -> None:
        self._refuse_newer()
        self._db.execute("PRAGMA journal_mode=WAL")
        self._mode, self._keeps_digests = "", True  # not of the tables that come to be
        self._synchronous("FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        if self._db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA:
            with self._write():
                # Another process may have been first while this one waited for the lock.
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                for text in [TABLES][version:] + [ADDED[later] for later in range(max(version, 1) + 1, SCHEMA + 1)]:
                    for statement in text.split(";\n"):
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA}")
        self._refuse_newer()
        digests.teach(self._db)
        self._keeps_digests = False  # until the first write
        self._refuse_loss()

    def _refuse_loss(self) -> None:
        # The head first: what another process adds meanwhile may only make the journal longer.
        head, path = self._head.read(), self._head.path
        (serial,) = self._db.execute("SELECT value FROM counter WHERE name = 'serial'").fetchone()
        if head == -1:
            raise damaged(self.path, f"its head {path} is not readable as one")
        if head is None and serial > 1:
            raise damaged(self.path, f"its head {path} is missing")
        if head is None:  # before the first decision: one that a power cut left without a head would look like damage
            self._head.write(serial)
        if head is not None and serial < head:
            raise damaged(self.path, f"it holds {serial} changes, and {path} knows of {head}: the last ones are lost")

    def _refuse_newer(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise too_new(self.path, version, SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def verify(self) -> None:
        """Raises JournalDamaged when SQLite's own check finds anything, or when the row of any transaction is damaged: which one is open
        is told by all of them (invariant I7)."""
        with self._read() as db:
            faults = [row[0] for row in db.execute("PRAGMA integrity_check")]
            if faults == ["ok"] and digests.damaged(db, "tx"):
                faults = [f"{digests.FAILED} in tx"]
        if faults != ["ok"]:
            raise damaged(self.path, " ".join(faults[0].split()))

    def verify_rows(self, tx: str) -> None:
        """Raises JournalDamaged when a row of the transaction, in any table, is not what was written (invariant I7)."""
        with self._read() as db:
            found = [table for table in digests.OF_A_TRANSACTION if digests.damaged(db, table, tx)]
        if found:
            raise damaged(self.path, f"{digests.FAILED} in {' and in '.join(found)}, of transaction {tx}")

    @contextlib.contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _explained(self.path):
            yield self._db

    def _synchronous(self, mode: str) -> None:
        """FULL: on the disk when it returns, with all that came before. NORMAL: survives every process, as the undo log does with
        `durability: process` (docs/adr/0002)."""
        if self._mode != mode:
            self._db.execute("PRAGMA synchronous=%s" % mode)
            self._mode = mode

    @contextlib.contextmanager
    def _write(self, *, decision: bool = False) -> Iterator[sqlite3.Connection]:
        """One SQL transaction; a method that calls another one joins its transaction. `decision`: on the disk when it returns."""
        with self._lock, _explained(self.path):
            joined = self._db.in_transaction
            if joined:
                if decision and self._mode != "FULL":
                    raise RuntimeError("a decision within what is none would not be on the disk when it returns")
                yield self._db
                return
            self._synchronous("FULL" if decision else "NORMAL")
            if not self._keeps_digests:
                digests.keep(self._db)
                self._keeps_digests = True
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("UPDATE counter SET value = value + 1 WHERE name = 'serial'")
                (serial,) = self._db.execute("SELECT value FROM counter WHERE name = 'serial'").fetchone()
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors (full disk, I/O).
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            if decision:
                # Only what is on the disk may be counted: a head that a power cut let reach it first would lead the journal.
                self._head.write(serial)


def _make_private(path: str) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(folder, 0o700)
    # Before SQLite opens it: -wal and -shm take over the mode of the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.chmod(path, 0o600)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if any(sign in text for sign in _SIGNS):
            raise damaged(path, text) from error
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
            raise
        raise unwritable(path, text) from error
    except Unreadable as error:
        raise damaged(path, str(error)) from error
    except OSError as error:
        raise unwritable(path, str(error.strerror)) from error
