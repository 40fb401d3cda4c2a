# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How many changes the journal has seen, told by a file outside of it (invariant I7).

SQLite in WAL mode takes a damaged frame for the end of the log: what came after vanishes without a word. The number in here was written,
and made durable, only after the change it counts was durable in the journal: it may lag behind, and never lead. A journal that has
seen fewer changes than its head says has lost some.
"""

from __future__ import annotations

import os
import zlib

from .. import whole

# In place and within one sector: it needs no room, and a power cut leaves the old line or the new one.
_LINE = "acid-journal-head 1 {serial:020d} {check:08x}\n"


class Head:
    """Raises OSError where the file cannot be read or written."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> int | None:
        """The number of the last change; None when there is no file or nothing in it, -1 when it is damaged."""
        try:
            with open(self.path, encoding="ascii", errors="replace") as file:
                line = file.read()
        except FileNotFoundError:
            return None
        if not line:  # its first writer died, or the disk was full
            return None
        fields = line.split(" ")
        if len(fields) != 4 or not fields[2].isdigit() or line != _line(int(fields[2])):
            return -1
        return int(fields[2])

    def write(self, serial: int) -> None:
        """On the disk when this returns. The change that it counts must be there already."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            born = os.fstat(descriptor).st_size == 0
            whole.write_at(descriptor, _line(serial).encode(), 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if born:
            folder = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _line(serial: int) -> str:
    return _LINE.format(serial=serial, check=zlib.crc32(str(serial).encode()))
