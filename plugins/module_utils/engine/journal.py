# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's journal: transactions, steps, savepoints, notes and probes' images. The only file with SQL.

Every public method is one SQL transaction: a process that dies between two calls leaves the state of the last call that returned, and a
call that raised has changed nothing. Decisions (begin, a transaction's states, the end of retention) survive a power cut too. A state
is only ever changed through `states.check`. Safe to use from several threads of one process, and from several processes at once.

Raises JournalUnwritable (full, read-only, failing disk), JournalDamaged (fails its checks, invariant I7) and SchemaTooNew from any method.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import states
from .errors import Blocked, Busy, JournalDamaged, JournalUnwritable, SchemaTooNew, StaleToken, Usage, WrongState, WrongTransaction
from .journal_head import Head
from .model import NOTE_KINDS, Compensation, FileSystem, Note, Savepoint, Step, Summary, Transaction

PATH = "/var/lib/acid/journal.db"
SCHEMA = 2
# How long a call waits for another process's write, in seconds: all writes here are short.
BUSY_WAIT = 10.0

_TABLES = """
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('token', 0);
INSERT INTO counter VALUES ('serial', 0);
CREATE TABLE tx (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, state TEXT NOT NULL, token INTEGER NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL, ended_ns INTEGER, deadline REAL, options TEXT NOT NULL, boot_id TEXT NOT NULL,
    engine TEXT NOT NULL, reason TEXT NOT NULL, epoch INTEGER NOT NULL, images INTEGER NOT NULL, summary TEXT) WITHOUT ROWID;
CREATE TABLE step (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, n INTEGER NOT NULL, id TEXT NOT NULL, epoch INTEGER NOT NULL, task TEXT NOT NULL,
    module TEXT NOT NULL, position TEXT NOT NULL, no_log INTEGER NOT NULL, state TEXT NOT NULL, started_ns INTEGER NOT NULL,
    sealed_ns INTEGER, pid INTEGER, PRIMARY KEY (tx, n), UNIQUE (tx, id)) WITHOUT ROWID;
CREATE TABLE savepoint (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, name TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (tx, name)) WITHOUT ROWID;
CREATE TABLE note (
    n INTEGER PRIMARY KEY, tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, kind TEXT NOT NULL, text TEXT NOT NULL, step INTEGER,
    UNIQUE (tx, kind, text, step));
CREATE TABLE probe (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, epoch INTEGER NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL,
    PRIMARY KEY (tx, name, epoch)) WITHOUT ROWID;
CREATE TABLE fs (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, mount_point BLOB NOT NULL, fstype TEXT NOT NULL, store BLOB NOT NULL,
    PRIMARY KEY (tx, mount_point)) WITHOUT ROWID;
"""

# What each schema after the first added. A new journal goes through all of them, so that there is one way only.
_ADDED = {
    2: """
CREATE TABLE savepoint_2 (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, epoch INTEGER NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY (tx, epoch)) WITHOUT ROWID;
INSERT INTO savepoint_2 SELECT tx, epoch, name FROM savepoint;
DROP TABLE savepoint;
ALTER TABLE savepoint_2 RENAME TO savepoint;
CREATE TABLE compensation (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, n INTEGER NOT NULL, id TEXT NOT NULL, epoch INTEGER NOT NULL, end_epoch INTEGER,
    name TEXT NOT NULL, step TEXT NOT NULL, body TEXT NOT NULL, host TEXT, result TEXT, seconds INTEGER NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, claim TEXT NOT NULL, claimed_by TEXT NOT NULL, claim_until_ns INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (tx, n), UNIQUE (tx, id)) WITHOUT ROWID;
""",
}

_TX = "id, name, owner, state, token, created_ns, deadline, options, boot_id, engine, reason, epoch, ended_ns, images"
_STEP = "n, id, epoch, task, module, position, no_log, state, started_ns, sealed_ns, pid"
_COMPENSATION = (
    "id, n, epoch, end_epoch, name, step, body, host, result, seconds, state, attempts, claim, claimed_by, claim_until_ns, reason"
)


class Journal:
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
        self._mode = ""
        self._synchronous("FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        if self._db.execute("PRAGMA user_version").fetchone()[0] < SCHEMA:
            with self._write():
                # Another process may have been first while this one waited for the lock.
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                for text in [_TABLES][version:] + [_ADDED[later] for later in range(max(version, 1) + 1, SCHEMA + 1)]:
                    for statement in text.split(";\n"):
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA}")
        self._refuse_newer()
        self._refuse_loss()

    def _refuse_loss(self) -> None:
        # The head first: what another process adds meanwhile may only make the journal longer.
        head, path = self._head.read(), self._head.path
        (serial,) = self._db.execute("SELECT value FROM counter WHERE name = 'serial'").fetchone()
        if head == -1:
            raise _damaged(self.path, f"its head {path} is not readable as one")
        if head is None and serial > 1:
            raise _damaged(self.path, f"its head {path} is missing")
        if head is None:  # before the first decision: one that a power cut left without a head would look like damage
            self._head.write(serial)
        if head is not None and serial < head:
            raise _damaged(self.path, f"it holds {serial} changes, and {path} knows of {head}: the last ones are lost")

    def _refuse_newer(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise SchemaTooNew(
                f"The journal {self.path} has schema {version}, and this engine knows schemas up to {SCHEMA}.",
                hint="Use the collection version that wrote it, or a newer one.",
            )

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # Transactions

    def begin(
        self,
        *,
        name: str,
        owner: str,
        options: dict[str, Any],
        boot_id: str,
        engine: str,
        deadline: float | None = None,
        prepare: Callable[[str], None] = lambda tx: None,
    ) -> Transaction:
        """A new ACTIVE transaction with the highest token yet. `prepare` is called with its id before there is one: what it raises, this
        raises.

        Raises Busy while another one is open, Blocked while one is in UNDO_FAILED.
        """
        with self._write(decision=True) as db:
            self._refuse_second()
            # No RETURNING: Debian 11 and RHEL 9 have SQLite 3.34.
            db.execute("UPDATE counter SET value = value + 1 WHERE name = 'token'")
            (token,) = db.execute("SELECT value FROM counter WHERE name = 'token'").fetchone()
            now = self._clock()
            tx = Transaction(
                id=_new_id(now),
                name=name,
                owner=owner,
                state=states.ACTIVE,
                token=token,
                created_ns=now,
                deadline=deadline,
                options=options,
                boot_id=boot_id,
                engine=engine,
                reason="",
            )
            prepare(tx.id)
            db.execute(
                f"INSERT INTO tx ({_TX}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (tx.id, name, owner, tx.state, token, now, deadline, _dump(options), boot_id, engine, "", 0, None, 1),
            )
        return tx

    def _refuse_second(self, *, but: str = "") -> None:
        holder = self._open()
        if holder is not None and holder.id != but:
            raise Busy(
                f"Transaction {holder.id} ({holder.name!r}) of {holder.owner} is open on this host since {_when(holder.created_ns)},"
                f" state {holder.state}.",
                hint=f"Wait for it to end, or undo it with `acidctl rollback {holder.id}`.",
            )
        row = self._db.execute("SELECT id, name, owner, reason FROM tx WHERE state = ? ORDER BY token", (states.UNDO_FAILED,)).fetchone()
        if row is not None and row[0] != but:
            raise Blocked(
                f"The undo of transaction {row[0]} ({row[1]!r}) of {row[2]} has failed{': ' + row[3] if row[3] else ''}.",
                hint=f"See `acidctl show {row[0]}`; then `acidctl rollback {row[0]}` again,"
                f" or `acidctl resolve {row[0]}` to keep the host as it is.",
            )

    def get(self, tx: str) -> Transaction:
        """Raises WrongTransaction when there is none of that id."""
        with self._read() as db:
            row = db.execute(f"SELECT {_TX} FROM tx WHERE id = ?", (tx,)).fetchone()
        if row is None:
            raise WrongTransaction(f"The journal {self.path} knows no transaction {tx!r}.", hint="`acidctl list` names those it knows.")
        return _transaction(row)

    def open_transaction(self) -> Transaction | None:
        with self._read():
            return self._open()

    def _open(self) -> Transaction | None:
        marks = ",".join("?" * len(states.OPEN))
        row = self._db.execute(f"SELECT {_TX} FROM tx WHERE state IN ({marks}) ORDER BY token DESC", tuple(states.OPEN)).fetchone()
        return None if row is None else _transaction(row)

    def transactions(self) -> list[Transaction]:
        """Oldest first."""
        with self._read() as db:
            return [_transaction(row) for row in db.execute(f"SELECT {_TX} FROM tx ORDER BY token")]

    def fence(self, tx: str, token: int) -> Transaction:
        """The transaction, if `token` is its own and no newer one was handed out (invariant I6).

        Raises WrongTransaction or StaleToken.
        """
        found = self.get(tx)
        with self._read() as db:
            (newest,) = db.execute("SELECT value FROM counter WHERE name = 'token'").fetchone()
        if token != found.token or token != newest:
            raise StaleToken(
                f"Token {token} is not the current one of transaction {tx} (its own is {found.token}, the host's newest is {newest}).",
                hint="Another controller has taken over since; start a new transaction.",
            )
        return found

    def set_state(self, tx: str, new: str, *, reason: str = "") -> Transaction:
        """Moves the transaction as `states` allows; a move to where it is already changes nothing. A reason replaces the last one.

        Raises WrongState; Busy or Blocked when an ended transaction would open again beside another one.
        """
        with self._write(decision=True) as db:
            old = self.get(tx)
            if not states.check(old.state, new):
                return old
            if new in states.OPEN and old.state not in states.OPEN:
                self._refuse_second(but=tx)
            ended = None if new in states.OPEN else self._clock()
            db.execute("UPDATE tx SET state = ?, reason = ?, ended_ns = ? WHERE id = ?", (new, _storable(reason) or old.reason, ended, tx))
            return self.get(tx)

    def set_deadline(self, tx: str, deadline: float | None) -> None:
        self._update(tx, "deadline = ?", deadline)

    def go_on(self, tx: str, *, boot_id: str, deadline: float) -> None:
        """After a planned reboot the transaction goes on in another boot (invariant I8). On the disk when it returns."""
        with self._write(decision=True) as db:
            self.get(tx)
            db.execute("UPDATE tx SET boot_id = ?, deadline = ? WHERE id = ?", (boot_id, deadline, tx))

    def drop_images(self, tx: str) -> None:
        """Retention has ended: no rollback is possible any more, and the probes' images are forgotten. Call before deleting files."""
        with self._write(decision=True) as db:
            state = self.get(tx).state
            if state in states.OPEN or state == states.UNDO_FAILED:
                raise WrongState(f"Transaction {tx} is {state}: its images are still needed.", hint="End it first.")
            db.execute("UPDATE tx SET images = 0 WHERE id = ?", (tx,))
            db.execute("DELETE FROM probe WHERE tx = ?", (tx,))
            db.execute("UPDATE compensation SET body = '', host = NULL, result = NULL WHERE tx = ?", (tx,))

    def set_summary(self, tx: str, summary: Summary) -> None:
        """Kept for `acidctl show` after the undo log is gone."""
        self._update(tx, "summary = ?", _dump(summary.to_json()))

    def summary(self, tx: str) -> Summary | None:
        with self._read() as db:
            row = db.execute("SELECT summary FROM tx WHERE id = ?", (tx,)).fetchone()
        return None if row is None or row[0] is None else Summary.from_json(json.loads(row[0]))

    # Epochs and steps

    def next_epoch(self, tx: str) -> int:
        """Starts an epoch: 1, 2, ... Epoch 0 is the time before the first step."""
        with self._write() as db:
            db.execute("UPDATE tx SET epoch = epoch + 1 WHERE id = ?", (tx,))
            return self.get(tx).epoch

    def add_step(self, tx: str, *, id: str, task: str, module: str, position: str, no_log: bool = False, pid: int | None = None) -> Step:
        """A STARTED step in an epoch of its own. A second `acidctl exec` with the same id is the same step, while it is STARTED.

        Raises WrongState when the transaction does not run steps or the step has ended.
        """
        with self._write() as db:
            state = self.get(tx).state
            if state not in states.RUNNING:
                raise WrongState(f"Transaction {tx} is {state}: no step may start.", hint="Begin a new transaction.")
            known = db.execute(f"SELECT {_STEP} FROM step WHERE tx = ? AND id = ?", (tx, id)).fetchone()
            if known is not None:
                step = _step(known)
                if step.state != states.STARTED:
                    raise WrongState(
                        f"Step {step.n} ({step.task!r}) of transaction {tx} is {step.state} already.",
                        hint="Each task needs a step id of its own.",
                    )
                return step
            (n,) = db.execute("SELECT COALESCE(MAX(n), 0) + 1 FROM step WHERE tx = ?", (tx,)).fetchone()
            step = Step(n, id, self.next_epoch(tx), task, module, position, no_log, states.STARTED, self._clock(), None, pid)
            db.execute(
                f"INSERT INTO step (tx, {_STEP}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (tx, n, id, step.epoch, task, module, position, no_log, step.state, step.started_ns, None, pid),
            )
            return step

    def seal_step(self, tx: str, n: int) -> None:
        self.set_step_state(tx, n, states.SEALED)

    def set_step_state(self, tx: str, n: int, new: str) -> None:
        """Raises WrongState as `states.check_step` does."""
        with self._write() as db:
            row = db.execute("SELECT state FROM step WHERE tx = ? AND n = ?", (tx, n)).fetchone()
            if row is None:
                raise Usage(f"Transaction {tx} has no step {n}.", hint=f"`acidctl show {tx}` lists its steps.")
            if states.check_step(row[0], new):
                sealed = self._clock() if new == states.SEALED else None
                db.execute(
                    "UPDATE step SET state = ?, pid = NULL, sealed_ns = COALESCE(?, sealed_ns) WHERE tx = ? AND n = ?", (new, sealed, tx, n)
                )

    def set_step_pid(self, tx: str, n: int, pid: int) -> None:
        with self._write() as db:
            db.execute("UPDATE step SET pid = ? WHERE tx = ? AND n = ?", (pid, tx, n))

    def steps(self, tx: str) -> list[Step]:
        with self._read() as db:
            return [_step(row) for row in db.execute(f"SELECT {_STEP} FROM step WHERE tx = ? ORDER BY n", (tx,))]

    def add_savepoint(self, tx: str, name: str) -> Savepoint:
        """Starts an epoch that the savepoint stands before. One of the same name hides the older one until it is gone."""
        with self._write() as db:
            point = Savepoint(name, self.next_epoch(tx))
            db.execute("INSERT INTO savepoint (tx, epoch, name) VALUES (?,?,?)", (tx, point.epoch, name))
            return point

    def savepoints(self, tx: str) -> list[Savepoint]:
        with self._read() as db:
            return [Savepoint(*row) for row in db.execute("SELECT name, epoch FROM savepoint WHERE tx = ? ORDER BY epoch", (tx,))]

    def renew_savepoint(self, tx: str, point: Savepoint) -> Savepoint:
        """All since `point` has been undone: it stands before a new epoch, and later ones are forgotten."""
        with self._write() as db:
            db.execute("DELETE FROM savepoint WHERE tx = ? AND epoch >= ?", (tx, point.epoch))
            return self.add_savepoint(tx, point.name)

    # Compensations

    def add_compensation(
        self, tx: str, *, id: str, name: str, step: str, body: str, host: list[dict[str, Any]] | None, seconds: int
    ) -> Compensation:
        """RECORDED, on the disk, at the start of an epoch of its own. The same id again is the same compensation."""
        with self._write(decision=True) as db:
            known = [found for found in self.compensations(tx) if found.id == id]
            if known:
                return known[0]
            state = self.get(tx).state
            if state not in states.RUNNING:
                raise WrongState(f"Transaction {tx} is {state}: no step may start.", hint="Begin a new transaction.")
            (n,) = db.execute("SELECT COALESCE(MAX(n), 0) + 1 FROM compensation WHERE tx = ?", (tx,)).fetchone()
            commands = None if host is None else _dump(host)
            row = (id, n, self.next_epoch(tx), None, name, step, body, commands, None, seconds, states.RECORDED, 0, "", "", 0, "")
            db.execute(f"INSERT INTO compensation (tx, {_COMPENSATION}) VALUES (?{',?' * len(row)})", (tx, *row))
            return _compensation(row)

    def end_compensated(self, tx: str, id: str, *, result: str, host: list[dict[str, Any]] | None) -> int:
        """The compensated step has ended, with that result: starts an epoch, and returns it."""
        with self._write() as db:
            self._compensation(tx, id)
            epoch = self.next_epoch(tx)
            commands = None if host is None else _dump(host)
            db.execute(
                "UPDATE compensation SET end_epoch = ?, result = ?, host = ? WHERE tx = ? AND id = ?", (epoch, result, commands, tx, id)
            )
            return epoch

    def compensations(self, tx: str) -> list[Compensation]:
        """In the order of their steps."""
        with self._read() as db:
            return [_compensation(row) for row in db.execute(f"SELECT {_COMPENSATION} FROM compensation WHERE tx = ? ORDER BY n", (tx,))]

    def claim_compensation(self, tx: str, id: str, *, by: str, attempts: int, until_ns: int) -> Compensation:
        """RUNNING, on the disk before anybody runs it; the claim's name is new each time. Raises WrongState when it has been paid."""
        with self._write(decision=True) as db:
            states.check_compensation(self._compensation(tx, id).state, states.RUNNING_NOW)
            values = (states.RUNNING_NOW, attempts, os.urandom(8).hex(), by, until_ns, tx, id)
            columns = "state = ?, attempts = ?, claim = ?, claimed_by = ?, claim_until_ns = ?"
            db.execute(f"UPDATE compensation SET {columns} WHERE tx = ? AND id = ?", values)
            return self._compensation(tx, id)

    def settle_compensation(self, tx: str, id: str, new: str, *, reason: str = "") -> Compensation:
        """Ends a claim, on the disk when it returns. RUNNING: it waits for its next attempt."""
        with self._write(decision=True) as db:
            states.check_compensation(self._compensation(tx, id).state, new)
            db.execute(
                "UPDATE compensation SET state = ?, claim = '', claim_until_ns = 0, reason = ? WHERE tx = ? AND id = ?",
                (new, reason, tx, id),
            )
            return self._compensation(tx, id)

    def _compensation(self, tx: str, id: str) -> Compensation:
        row = self._db.execute(f"SELECT {_COMPENSATION} FROM compensation WHERE tx = ? AND id = ?", (tx, id)).fetchone()
        if row is None:
            raise Usage(f"Transaction {tx} has no compensation {id}.", hint=f"`acidctl show {tx}` lists them.")
        return _compensation(row)

    # What is told, and what is kept

    def note(self, tx: str, kind: str, text: str, *, step: int | None = None) -> None:
        """Adds a note unless the same one is there."""
        if kind not in NOTE_KINDS:
            raise Usage(f"{kind!r} is not a kind of note.", hint=f"It is one of {', '.join(NOTE_KINDS)}.")
        with self._write() as db:
            # NULLs count as different in a UNIQUE index.
            db.execute(
                "INSERT INTO note (tx, kind, text, step) SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS"
                " (SELECT 1 FROM note WHERE tx = ?1 AND kind = ?2 AND text = ?3 AND step IS ?4)",
                (tx, kind, _storable(text), step),
            )

    def notes(self, tx: str, kind: str | None = None) -> list[Note]:
        with self._read() as db:
            rows = db.execute("SELECT kind, text, step FROM note WHERE tx = ? AND (?2 IS NULL OR kind = ?2) ORDER BY n", (tx, kind))
            return [Note(*row) for row in rows]

    def drop_notes(self, tx: str, kind: str) -> None:
        """For an undo that runs again: what differed the last time may not differ now."""
        with self._write() as db:
            db.execute("DELETE FROM note WHERE tx = ? AND kind = ?", (tx, kind))

    def set_probe(self, tx: str, epoch: int, name: str, image: dict[str, Any]) -> None:
        self.set_probes(tx, epoch, {name: image})

    def set_probes(self, tx: str, epoch: int, images: dict[str, dict[str, Any]]) -> None:
        """Images by the probe's name; the first one of an epoch wins."""
        with self._write() as db:
            rows = [(tx, epoch, name, _dump(image)) for name, image in images.items()]
            db.executemany("INSERT OR IGNORE INTO probe VALUES (?,?,?,?)", rows)

    def images_of(self, name: str) -> list[dict[str, Any]]:
        """Every image of a probe that the journal still has, of all transactions."""
        with self._read() as db:
            return [json.loads(image) for (image,) in db.execute("SELECT image FROM probe WHERE name = ?", (name,))]

    def probe(self, tx: str, name: str, *, epoch: int = 0) -> dict[str, Any] | None:
        """The earliest image with an epoch >= `epoch`, or None."""
        with self._read() as db:
            row = db.execute(
                "SELECT image FROM probe WHERE tx = ? AND name = ? AND epoch >= ? ORDER BY epoch LIMIT 1", (tx, name, epoch)
            ).fetchone()
        if row is None:
            return None
        image: dict[str, Any] = json.loads(row[0])
        return image

    def probes(self, tx: str, name: str) -> list[tuple[int, dict[str, Any]]]:
        """All images of one probe, as (epoch, image), in order."""
        with self._read() as db:
            rows = db.execute("SELECT epoch, image FROM probe WHERE tx = ? AND name = ? ORDER BY epoch", (tx, name))
            return [(epoch, json.loads(image)) for epoch, image in rows]

    def add_fs(self, tx: str, fs: FileSystem) -> None:
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO fs VALUES (?,?,?,?)", (tx, fs.mount_point, fs.fstype, fs.store))

    def file_systems(self, tx: str) -> list[FileSystem]:
        with self._read() as db:
            return [
                FileSystem(*row) for row in db.execute("SELECT mount_point, fstype, store FROM fs WHERE tx = ? ORDER BY mount_point", (tx,))
            ]

    def verify(self) -> None:
        """Raises JournalDamaged when SQLite's own check finds anything (invariant I7)."""
        with self._read() as db:
            faults = [row[0] for row in db.execute("PRAGMA integrity_check")]
        if faults != ["ok"]:
            raise _damaged(self.path, " ".join(faults[0].split()))

    # Plumbing

    def _update(self, tx: str, assignment: str, value: object) -> None:
        with self._write() as db:
            if db.execute(f"UPDATE tx SET {assignment} WHERE id = ?", (value, tx)).rowcount != 1:
                self.get(tx)

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
                yield self._db
                return
            self._synchronous("FULL" if decision else "NORMAL")
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
        if "malformed" in text or "not a database" in text:
            raise _damaged(path, text) from error
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
            raise
        raise _unwritable(path, text) from error
    except OSError as error:
        raise _unwritable(path, str(error.strerror)) from error


def _damaged(path: str, text: str) -> JournalDamaged:
    hint = "Nothing was touched. Keep a copy of its directory, and see `acidctl verify`."
    return JournalDamaged(f"The journal {path} fails its checks: {text}.", hint=hint)


def _unwritable(path: str, text: str) -> JournalUnwritable:
    folder = os.path.dirname(path)
    return JournalUnwritable(f"The journal {path} cannot be written: {text}.{_room(folder)}", hint=_remedy(folder, text))


def _room(folder: str) -> str:
    try:
        room = os.statvfs(folder)
    except OSError:
        return ""
    return f" {room.f_bavail * room.f_frsize >> 20} MiB and {room.f_favail} inodes are free there."


def _remedy(folder: str, text: str) -> str:
    lower = text.lower()
    if "locked" in lower or "busy" in lower:
        return "Another acidctl holds it; try again in a moment."
    if "readonly" in lower or "read-only" in lower:
        return f"Make the file system of {folder} writable (`findmnt -T {folder}`), then try again."
    if "full" in lower or "no space" in lower or "quota" in lower:
        return f"Free space on the file system of {folder} (`acidctl gc` drops images of old transactions), then try again."
    return f"Look at `findmnt -T {folder}`, `df {folder}` and the kernel's log, then try again."


def _storable(text: str) -> str:
    """Names of paths need not be UTF-8, and SQLite's text has to."""
    return text.encode("utf-8", "backslashreplace").decode()


def _new_id(now_ns: int) -> str:
    return f"{time.strftime('%Y%m%d', time.gmtime(now_ns / 1e9))}-{os.urandom(4).hex()}"


def _when(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ns / 1e9))


def _dump(data: object) -> str:
    return json.dumps(data, separators=(",", ":"), sort_keys=True)


def _transaction(row: tuple[Any, ...]) -> Transaction:
    fields = dict(zip(_TX.split(", "), row))
    fields["options"] = json.loads(fields["options"])
    fields["images"] = bool(fields["images"])
    return Transaction(**fields)


def _step(row: tuple[Any, ...]) -> Step:
    fields = dict(zip(_STEP.split(", "), row))
    fields["no_log"] = bool(fields["no_log"])
    return Step(**fields)


def _compensation(row: tuple[Any, ...]) -> Compensation:
    fields = dict(zip(_COMPENSATION.split(", "), row))
    fields["host"] = None if fields["host"] is None else tuple(json.loads(fields["host"]))
    return Compensation(**fields)
