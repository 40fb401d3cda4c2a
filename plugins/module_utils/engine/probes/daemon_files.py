# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that systemd's daemons write on a step's behalf, so that no trace sees it: `systemctl enable` and `mask` are PID 1's work,
/etc/hostname is hostnamed's, /etc/localtime timedated's, /etc/locale.conf localed's.

The undo log has put back what the steps wrote themselves; this puts back the rest, and the times of the directories around them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe
from .filetree import Entry, compare_entries, put_back, read, read_tree, remove, settle_directory, sweep

TREES = (b"/etc/systemd", b"/run/systemd/system", b"/run/systemd/system.control")
FILES = (
    b"/etc/adjtime",
    b"/etc/default/keyboard",
    b"/etc/default/locale",
    b"/etc/hostname",
    b"/etc/locale.conf",
    b"/etc/localtime",
    b"/etc/machine-info",
    b"/etc/timezone",
    b"/etc/vconsole.conf",
    b"/etc/X11/xorg.conf.d/00-keyboard.conf",
)
Tree = dict[bytes, Entry]


class DaemonFiles(Probe):
    name = "daemon_files"

    def __init__(self, *, trees: tuple[bytes, ...] = TREES, files: tuple[bytes, ...] = FILES) -> None:
        self._trees, self._files = trees, files

    def capture(self) -> Image:
        return {
            "entries": _dump(self._inside()),
            # The directories around them: daemons replace files by rename, which changes the directory's time.
            "around": _dump(self._around()),
        }

    def _inside(self) -> Tree:
        found: Tree = {}
        for tree in self._trees:
            found.update(read_tree(tree))
        for path in self._files:
            entry = read(path)
            if entry is not None:
                found[path] = entry
        return found

    def _around(self) -> Tree:
        paths = {os.path.dirname(path) for path in (*self._trees, *self._files)}
        return {path: entry for path in sorted(paths) for entry in [read(path)] if entry is not None}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        was, is_now = _load(before["entries"]), _load(now["entries"])
        sentences = []
        for path in sorted({*was, *is_now}):
            old, new = was.get(path), is_now.get(path)
            if old is not None and new is not None and old.names != new.names:
                # The directory's time goes with its entries, which are told themselves.
                new = replace(new, mtime_ns=old.mtime_ns)
            difference = compare_entries(old, new)
            if difference and not _somebody_elses(path, was.get(path), is_now.get(path), circumstances):
                sentences.append(f"{os.fsdecode(path)!r} {difference}.")
        return sentences

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        was, around = _load(before["entries"]), _load(before["around"])
        for path in (*around, *(path for path, entry in was.items() if _is_directory(entry))):
            sweep(path)
        now, outcome, touched = self._inside(), NOTHING, set()
        # Parents come before what is in them; what is removed goes the other way round.
        ordered = sorted(was) + sorted((path for path in now if path not in was), reverse=True)
        for path in ordered:
            old, new = was.get(path), now.get(path)
            difference = compare_entries(old, new)
            if not difference or (_is_directory(old) and _is_directory(new)):
                continue
            if _somebody_elses(path, old, new, circumstances):
                outcome += Outcome(notes=(f"{os.fsdecode(path)!r} {difference}: that was not the transaction, and is left.",))
                continue
            touched.add(os.path.dirname(path))
            try:
                if old is None:
                    remove(path)
                else:
                    put_back(path, old)
            except OSError as error:
                outcome += Outcome(failures=(f"{os.fsdecode(path)!r} {difference}, and cannot be put back: {error.strerror}.",))
            else:
                outcome += Outcome(actions=(f"{os.fsdecode(path)} is as before",))
        directories = {path: entry for path, entry in {**around, **was}.items() if _is_directory(entry)}
        for path in sorted(directories, reverse=True):
            outcome += _settle(path, directories[path], path in touched, circumstances)
        return outcome


def _settle(path: bytes, old: Entry, touched: bool, circumstances: Circumstances) -> Outcome:
    """A directory's own mode and times, last. Not where somebody else's entries remain: its time is theirs then."""
    now = read(path)
    if now is None or not compare_entries(old, now) or now.names != old.names:
        return NOTHING
    if not touched and circumstances.left is not None:
        left = _load({**circumstances.left["around"], **circumstances.left["entries"]}).get(path)
        if left is None or left.mtime_ns != now.mtime_ns:
            return NOTHING
    try:
        settle_directory(path, old)
    except OSError as error:
        return Outcome(failures=(f"The directory {os.fsdecode(path)!r} cannot be set back: {error.strerror}.",))
    return NOTHING


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and stat.S_ISDIR(entry.mode)


def _somebody_elses(path: bytes, old: Entry | None, new: Entry | None, circumstances: Circumstances) -> bool:
    if circumstances.left is not None:
        left = _load(circumstances.left["entries"]).get(path)
        return not compare_entries(old, left) or bool(compare_entries(new, left))
    if new is None or (_is_directory(new) and not new.names):
        # Of an empty directory nobody can say when it was made: an undo that died may have emptied it.
        return False
    return not circumstances.by_a_step(new.ctime_ns)


def _dump(tree: Tree) -> dict[str, object]:
    return {os.fsdecode(path): entry.to_json() for path, entry in tree.items()}


def _load(data: dict[str, dict[str, object]]) -> Tree:
    return {os.fsencode(path): Entry.from_json(entry) for path, entry in data.items()}
