# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each row of a transaction carries the digest of its other columns (invariant I7): SQLite's own check sees its tree, and no value in it.

    digests.teach(db)                   a connection what a digest is
    digests.keep(db)                    before it writes: what it writes gets its digest, what is damaged it does not write over
    digests.damaged(db, "probe", tx)    whether a row is not what was written

An empty digest is that of an engine which had none: its row cannot be verified, and is gone by. The triggers are of the connection and not
of the file, so no tool that lacks the function meets them; what such a tool changes counts as damage.
"""

from __future__ import annotations

import hashlib
import typing as t

#: table -> the column that tells the transaction
OF_A_TRANSACTION = {"tx": "id", "step": "tx", "savepoint": "tx", "compensation": "tx", "note": "tx", "probe": "tx", "fs": "tx"}
FAILED = "a row is not what was written"

_Value = t.Union[None, int, float, bytes, str]


class Connection(t.Protocol):
    """What is needed of sqlite3's: database.py alone imports that."""

    def create_function(self, name: str, narg: int, func: t.Callable[..., str], /) -> None: ...

    def execute(self, sql: str, parameters: t.Any = ..., /) -> t.Any: ...


def teach(db: Connection) -> None:
    db.create_function("acid_digest", -1, _digest)


def keep(db: Connection) -> None:
    """Takes a few milliseconds."""
    db.execute("PRAGMA temp_store=MEMORY")  # where the triggers are
    for table in OF_A_TRANSACTION:
        columns, key = _columns(db, table)
        names, here = ", ".join(name for name, _kind in columns), " AND ".join(f"{name} = NEW.{name}" for name in key)
        renew = f"BEGIN UPDATE {table} SET digest = {_of(table, columns)} WHERE {here}; END"
        db.execute(f"CREATE TEMP TRIGGER {table}_new AFTER INSERT ON main.{table} {renew}")
        db.execute(f"CREATE TEMP TRIGGER {table}_changed AFTER UPDATE OF {names} ON main.{table} {renew}")
        differs = f"OLD.digest != '' AND OLD.digest != {_of(table, columns, 'OLD.')}"
        db.execute(
            f"CREATE TEMP TRIGGER {table}_damaged BEFORE UPDATE OF {names} ON main.{table} WHEN {differs}"
            f" BEGIN SELECT RAISE(ABORT, '{FAILED}'); END"
        )


def damaged(db: Connection, table: str, tx: str | None = None) -> bool:
    """Of the transaction, or of one that is not there, or of all."""
    columns, _key = _columns(db, table)
    whose = OF_A_TRANSACTION[table]
    which = f"(?1 IS NULL OR {whose} = ?1 OR {whose} NOT IN (SELECT id FROM tx)) AND digest != '' AND digest != {_of(table, columns)}"
    return db.execute(f"SELECT 1 FROM {table} WHERE {which} LIMIT 1", (tx,)).fetchone() is not None


def _columns(db: Connection, table: str) -> tuple[list[tuple[str, str]], list[str]]:
    """(name, type) of each column but the digest, and the names of the key."""
    found = db.execute(f"PRAGMA table_info({table})").fetchall()
    return [(row[1], row[2]) for row in found if row[1] != "digest"], [row[1] for row in found if row[5]]


def _of(table: str, columns: t.Sequence[tuple[str, str]], row: str = "") -> str:
    # Text as the bytes that it is: damaged it may be no UTF-8.
    values = [f"CAST({row}{name} AS BLOB)" if kind == "TEXT" else row + name for name, kind in columns]
    return f"acid_digest('{' '.join([table, *(name for name, _kind in columns)])}', {', '.join(values)})"


def _digest(names: str, *values: _Value) -> str:
    """NULL counts as not there: a schema that adds a column leaves the digests of older rows right."""
    table, *columns = names.split(" ")
    found = hashlib.sha256(table.encode())
    for name, value in zip(columns, values):
        if value is not None:
            data = value if isinstance(value, bytes) else (value.hex() if isinstance(value, float) else str(value)).encode()
            found.update(b"\0%s %s %d " % (name.encode(), type(value).__name__.encode(), len(data)) + data)
    return found.hexdigest()
