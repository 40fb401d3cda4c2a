# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long images are kept after a transaction has ended, and getting rid of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import typing as t

from . import formats, states
from .errors import JournalDamaged, WrongState
from .filesystems import TRACED
from .journal import Journal
from .model import Transaction
from .paths import STATE, directory_of
from .probes.registry import Probes
from .records import FileSystemSeen
from .store import Store
from .undolog import Reader

DAYS, PERCENT = 7.0, 10.0
_LOGS = directory_of("")
_ENDED = (states.COMMITTED, states.ABORTED, states.RESOLVED)


class Limits(t.NamedTuple):
    """Keep images for `days`, and while they and the logs take less than `percent` of their file system."""

    days: float = DAYS
    percent: float = PERCENT

    @classmethod
    def of(cls, options: dict[str, t.Any]) -> Limits:
        retention = options.get("retention") or {}
        return cls(float(retention.get("days", DAYS)), float(retention.get("percent", PERCENT))) if isinstance(retention, dict) else cls()


def gc(
    journal: Journal, *, limits: Limits | None = None, now_ns: int | None = None, goes_on: t.Callable[[], bool] = lambda: True
) -> list[str]:
    """Drop the images of ended transactions beyond their limits, the oldest first. Returns their ids. `goes_on` is asked before each of
    them: whoever has something better to do stops there, and the next gc does the rest."""
    now = time.time_ns() if now_ns is None else now_ns
    dropped: list[Transaction] = []
    kept: list[Transaction] = []
    for value in journal.transactions():
        there = value.images or os.path.isdir(directory_of(value.id))  # what a drop had to leave behind
        if there and value.state in _ENDED and formats.known(directory_of(value.id)):  # else it is for the engine that does
            own = limits or Limits.of(value.options)
            aged = value.ended_ns is not None and now - value.ended_ns > own.days * 86400e9
            (dropped if aged or not value.images else kept).append(value)
    gone = [value.id for value in dropped if goes_on() and _let_go(journal, value)]
    taken = _taken(STATE) if kept and goes_on() else {}
    share = sum(taken.values())
    for value in kept:
        if share <= (limits or Limits.of(value.options)).percent or not goes_on():
            break
        if _let_go(journal, value):
            gone.append(value.id)
            share -= taken.get(value.id, 0.0)
    _forget(journal, gone)
    _remove_unknown(journal, now)
    return gone


def _remove_unknown(journal: Journal, now: int) -> None:
    """Logs of transactions that died before their row was written (I9). The young ones may be about to have one."""
    known = {value.id for value in journal.transactions()}
    for name in os.listdir(_LOGS) if os.path.isdir(_LOGS) else []:
        if name not in known and now - os.lstat(os.path.join(_LOGS, name)).st_mtime_ns > 3600e9:
            shutil.rmtree(os.path.join(_LOGS, name), ignore_errors=True)


def _discard_probes(journal: Journal) -> None:
    try:
        for probe in Probes().before_files():
            probe.discard(journal.images_of(probe.name))
    except JournalDamaged as error:  # what a damaged image needs is not known
        sys.stderr.write("acid: what probes keep stays: %s\n" % error)


def drop(journal: Journal, value: Transaction) -> bool:
    """After this the transaction can be listed, and neither rolled back nor diffed. False: its images are needed again by now, or a file
    system does not let go of them (read-only), and the next gc tries again."""
    gone = _let_go(journal, value)
    _forget(journal, [value.id] if gone else [])
    return gone


def _let_go(journal: Journal, value: Transaction) -> bool:
    """Of its images. Its log stays until the rest is gone too: by it the next gc knows that there is a rest."""
    try:
        journal.drop_images(value.id)
    except WrongState:  # its rollback has begun
        return False
    directory = directory_of(value.id)
    store = Store(value.id)
    try:
        for seen in _file_systems(directory):
            store.adopt(seen)
        store.remove()
        if any(fs.policy == TRACED and fs.mount_fd >= 0 and store.existing_directory(fs) >= 0 for fs in store.by_number.values()):
            return False  # this is a step of another transaction, and the trace does not let it
    except (JournalDamaged, FileNotFoundError):
        pass  # without its log only the store on our own file system can be found
    except OSError as error:
        sys.stderr.write("acid: images of %s stay: %s\n" % (value.id, error))
        return False
    finally:
        store.close()
    return True


def _forget(journal: Journal, gone: t.Sequence[str]) -> None:
    if gone:
        _discard_probes(journal)
    for tx in gone:
        shutil.rmtree(directory_of(tx), ignore_errors=True)
        shutil.rmtree("%s/store/%s" % (STATE, tx), ignore_errors=True)


def _file_systems(directory: str) -> list[FileSystemSeen]:
    """Of a log; without its images, which may be 100,000."""
    found = {record.fs: record for record in Reader(directory) if isinstance(record, FileSystemSeen)}
    return list(found.values())


def release_left_reserves(journal: Journal) -> None:
    """Of transactions whose commit, or whose undo, was written and who died before they had given their reserves back (I9)."""
    for value in journal.transactions():
        directory = directory_of(value.id)
        if value.state in _ENDED and os.path.exists(directory + "/reserves") and formats.known(directory):
            store = Store(value.id)
            try:
                store.adopt_all(_file_systems(directory))
                store.room.release_reserves()
            except (JournalDamaged, OSError):  # a disk that fails keeps no agent from starting; the next one tries again
                continue
            finally:
                store.close()


def _taken(path: str) -> dict[str, float]:
    """Per cent of its file system that each transaction takes of the tree, and "" the rest (inodes that have other names too count in
    full). One walk: the tree may hold a million names."""
    blocks: dict[str, int] = {}
    for folder, _folders, files in os.walk(path):
        parts = os.path.relpath(folder, path).split(os.sep)
        whose = parts[1] if len(parts) > 1 and parts[0] in ("tx", "store") else ""
        for name in files:
            with contextlib.suppress(OSError):
                blocks[whose] = blocks.get(whose, 0) + os.lstat(os.path.join(folder, name)).st_blocks
    room = os.statvfs(path)
    return {whose: 100.0 * count * 512 / max(1, room.f_blocks * room.f_frsize) for whose, count in blocks.items()}
