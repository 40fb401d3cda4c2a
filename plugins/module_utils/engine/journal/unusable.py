# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Why the journal cannot be used: what SQLite and the kernel say, as a sentence, with what a person can do about it."""

from __future__ import annotations

import os

from ..errors import JournalDamaged, JournalUnwritable, SchemaTooNew


def damaged(path: str, text: str) -> JournalDamaged:
    hint = "Nothing was touched. Keep a copy of its directory, and see `acidctl verify`."
    return JournalDamaged(f"The journal {path} fails its checks: {text}.", hint=hint)


def unwritable(path: str, text: str) -> JournalUnwritable:
    folder = os.path.dirname(path)
    return JournalUnwritable(f"The journal {path} cannot be written: {text}.{_room(folder)}", hint=_remedy(folder, text))


def too_new(path: str, version: int, known: int) -> SchemaTooNew:
    return SchemaTooNew(
        f"The journal {path} has schema {version}, and this engine knows schemas up to {known}.",
        hint="Use the collection version that wrote it, or a newer one.",
    )


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
