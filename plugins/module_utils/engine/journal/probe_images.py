# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Probes' images, by epoch: the earliest one of an epoch or after it is what an undo puts back."""

from __future__ import annotations

from typing import Any

from .database import Database
from .rows import dump, load


class ProbeImages(Database):
    def set_probe(self, tx: str, epoch: int, name: str, image: dict[str, Any]) -> None:
        self.set_probes(tx, epoch, {name: image})

    def set_probes(self, tx: str, epoch: int, images: dict[str, dict[str, Any]], *, on_disk: bool = False) -> None:
        """Images by the probe's name; the first one of an epoch wins. `on_disk`: when it returns, since what they are images of is changed
        by others (PID 1), whose writes wait for no record of the log."""
        with self._write(decision=on_disk) as db:
            rows = [(tx, epoch, name, dump(image)) for name, image in images.items()]
            db.executemany("INSERT OR IGNORE INTO probe (tx, epoch, name, image) VALUES (?,?,?,?)", rows)

    def images_of(self, name: str) -> list[dict[str, Any]]:
        """Every image of a probe that the journal still has, of all transactions."""
        with self._read() as db:
            return [load(image) for (image,) in db.execute("SELECT image FROM probe WHERE name = ?", (name,))]

    def probe(self, tx: str, name: str, *, epoch: int = 0) -> dict[str, Any] | None:
        """The earliest image with an epoch >= `epoch`, or None."""
        with self._read() as db:
            row = db.execute(
                "SELECT image FROM probe WHERE tx = ? AND name = ? AND epoch >= ? ORDER BY epoch LIMIT 1", (tx, name, epoch)
            ).fetchone()
            image: dict[str, Any] | None = None if row is None else load(row[0])
        return image

    def probes(self, tx: str, name: str) -> list[tuple[int, dict[str, Any]]]:
        """All images of one probe, as (epoch, image), in order."""
        with self._read() as db:
            rows = db.execute("SELECT epoch, image FROM probe WHERE tx = ? AND name = ? ORDER BY epoch", (tx, name))
            return [(epoch, load(image)) for epoch, image in rows]
