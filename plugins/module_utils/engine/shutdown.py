# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a boot ended with a transaction open, as the next boot finds it in the transaction's directory. All of it is on the disk at once.

    clean      the boot id: the log and all file systems had been synced, and nothing was let happen after that (two, while the
               transaction comes to be of the later one); or `undo ` and the id of the boot in which an undo goes on from there
    reboot     seconds that a planned reboot may take, counted anew in the boot that follows it
    rebooted   the transaction has seen more than one boot

Without `clean` the boot ended by a crash or a power cut, and with `durability: process` changes of its last seconds may have no image.
"""

from __future__ import annotations

import contextlib
import os

from . import kernel, whole
from .boot import boot_id

_UNDO = "undo "


def mark(directory: str, *boots: str) -> None:
    _write(directory, "clean", "\n".join(boots))


def unmark(directory: str) -> None:
    """Before anything may change again."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directory + "/clean")
        kernel.sync_directory(directory)


def mark_undo(directory: str) -> None:
    """Nothing is missing, and an undo begins, which syncs nothing before its end: no later boot may rely on that."""
    _write(directory, "clean", _UNDO + boot_id())


def was_clean(directory: str, boot: str) -> bool:
    """Whether the log lacks nothing of what was done in `boot`."""
    text = _read(directory, "clean")
    return text == _UNDO + boot_id() if text.startswith(_UNDO) else boot in text.split("\n")


def plan(directory: str, seconds: float) -> None:
    _write(directory, "reboot", "%.1f" % seconds)


def planned(directory: str) -> float:
    """Seconds that the reboot may take."""
    text = _read(directory, "reboot")
    return float(text) if text else 0.0


def note_boot(directory: str) -> None:
    _write(directory, "rebooted", "1")


def was_rebooted(directory: str) -> bool:
    return bool(_read(directory, "rebooted"))


def _read(directory: str, name: str) -> str:
    try:
        with open("%s/%s" % (directory, name), encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


def _write(directory: str, name: str, text: str) -> None:
    """Whole or not at all."""
    fd = os.open("%s/%s.new" % (directory, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        whole.write(fd, text.encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename("%s/%s.new" % (directory, name), "%s/%s" % (directory, name))
    kernel.sync_directory(directory)
