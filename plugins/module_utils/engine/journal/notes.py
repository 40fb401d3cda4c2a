# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Notes for the recap, and the file systems that a transaction touched."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Usage
from ..model import NOTE_KINDS, FileSystem, Note
from .database import Database
from .rows import storable


class Notes(Database):
    def note(self, tx: str, kind: str, text: str, *, step: int | None = None) -> None:
        """Adds a note unless the same one is there."""
        self.note_all(tx, kind, (text,), step=step)

    def note_all(self, tx: str, kind: str, texts: Iterable[str], *, step: int | None = None) -> None:
        """Likewise many: a disk that fails in the middle of an undo makes one for each path."""
        if kind not in NOTE_KINDS:
            raise Usage(f"{kind!r} is not a kind of note.", hint=f"It is one of {', '.join(NOTE_KINDS)}.")
        rows = [(tx, kind, storable(text), step) for text in texts]
        if not rows:
            return
        with self._write() as db:
            # NULLs count as different in a UNIQUE index.
            db.executemany(
                "INSERT INTO note (tx, kind, text, step) SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS"
                " (SELECT 1 FROM note WHERE tx = ?1 AND kind = ?2 AND text = ?3 AND step IS ?4)",
                rows,
            )

    def notes(self, tx: str, kind: str | None = None) -> list[Note]:
        with self._read() as db:
            rows = db.execute("SELECT kind, text, step FROM note WHERE tx = ? AND (?2 IS NULL OR kind = ?2) ORDER BY n", (tx, kind))
            return [Note(*row) for row in rows]

    def drop_notes(self, tx: str, kind: str) -> None:
        """For an undo that runs again: what differed the last time may not differ now."""
        with self._write() as db:
            db.execute("DELETE FROM note WHERE tx = ? AND kind = ?", (tx, kind))

    def add_fs(self, tx: str, fs: FileSystem) -> None:
        with self._write() as db:
            db.execute(
                "INSERT OR REPLACE INTO fs (tx, mount_point, fstype, store) VALUES (?,?,?,?)", (tx, fs.mount_point, fs.fstype, fs.store)
            )

    def file_systems(self, tx: str) -> list[FileSystem]:
        with self._read() as db:
            return [
                FileSystem(*row) for row in db.execute("SELECT mount_point, fstype, store FROM fs WHERE tx = ? ORDER BY mount_point", (tx,))
            ]
