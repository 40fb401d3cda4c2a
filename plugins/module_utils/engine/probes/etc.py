# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that daemons write on a step's behalf, so that no trace sees it: `systemctl enable` is PID 1's work, /etc/hostname hostnamed's,
/etc/resolv.conf NetworkManager's. All of /etc is remembered, and the trees that the user names.

The undo log has put back what the steps wrote themselves; this puts back the rest, and the times of the directories around it. An image is
a manifest, kept by content beside the journal like the files themselves (`contents.py`): what has the inode and ctime that the last
manifest says is not read again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe
from .contents import Contents
from .filetree import Entry, Tree, compare_entries, names_in, put_back, read, read_tree, remove, settle_directory, sweep
from .manifest import Manifest, aside, digest_of, dump, load

STATE = "/var/lib/acid/etc"
# A service's start may call update-alternatives (php-fpm's does), whose links alone are in /etc. The first is Debian's database.
ALTERNATIVES = (b"/var/lib/dpkg/alternatives", b"/var/lib/alternatives")
TREES = (b"/etc", b"/run/systemd/system", b"/run/systemd/system.control", b"/root/.config/systemd", *ALTERNATIVES)
# What systemd's own daemons write is theirs at any time of a step; elsewhere only while a step talked to some daemon.
KNOWN_TREES = (b"/etc/systemd", b"/run/systemd/system", b"/run/systemd/system.control", b"/root/.config/systemd")
KNOWN_FILES = frozenset(
    (
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
)
# Put back row by row, so that others' rows survive; not by this probe.
_BY_ROW = (b"passwd", b"group", b"shadow", b"gshadow", b"subuid", b"subgid")
WITHOUT = frozenset((b"/etc/.pwd.lock", b"/etc/mtab", *(b"/etc/" + name + end for name in _BY_ROW for end in (b"", b"-"))))


class Etc(Probe):
    name = "etc"

    def __init__(
        self,
        *,
        further: tuple[bytes, ...] = (),
        trees: tuple[bytes, ...] = TREES,
        known: Iterable[bytes] = (*KNOWN_TREES, *KNOWN_FILES),
        state: str = STATE,
    ) -> None:
        self._trees = trees + tuple(tree for tree in further if tree not in trees)
        self._known = frozenset(known)
        self._contents = Contents(os.path.join(state, "contents"))
        self._last = os.path.join(state, "last")
        self._why: dict[bytes, str] = {}

    def capture(self) -> Image:
        digest = digest_of(self._last)
        last = self._manifest(digest)
        now = self._look(self._whole(last), time.time_ns())
        if digest and now == last:
            self._contents.sync()
            return {"manifest": digest}
        digest = dump(now, self._contents)
        self._contents.sync()
        fresh = f"{self._last}.{os.getpid()}"
        with open(fresh, "w", encoding="ascii") as file:
            file.write(digest)
        os.rename(fresh, self._last)
        return {"manifest": digest}

    def _whole(self, manifest: Manifest) -> Manifest:
        """Without the files of which no content is kept any more: they are read again, or each undo to come would be refused (I7)."""
        lacking = {path for path, entry in manifest.inside.items() if entry.digest and self._contents.lacks(entry.digest)}
        return manifest._replace(inside={path: entry for path, entry in manifest.inside.items() if path not in lacking})

    def _look(self, known: Manifest, now_ns: int) -> Manifest:
        inside: Tree = {}
        for tree in self._trees:
            inside.update(read_tree(tree, known.inside, keep=self._contents.add, now_ns=now_ns, without=WITHOUT))
        # The directories around them: daemons replace files by rename, which changes the directory's time, and make what is missing.
        folders = {_nearest(tree) for tree in self._trees} - set(inside) - {b"/"}
        around = {path: entry for path in sorted(folders) for entry in [read(path, known.around.get(path), now_ns=now_ns)] if entry}
        return Manifest(inside, around)

    def _manifest(self, digest: str) -> Manifest:
        return load(self._contents, digest) or Manifest({}, {})

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        wanted = self._wanted(before)
        was = _surviving(wanted, circumstances).inside
        is_now = _surviving(self._seen_before(wanted, self._manifest(now["manifest"])), circumstances).inside
        left = self._left(circumstances)
        names_then, names_now = names_in(was), names_in(is_now)
        sentences = []
        for path in sorted({*was, *is_now}):
            old, new = was.get(path), is_now.get(path)
            if old is not None and new is not None and names_then.get(path) != names_now.get(path):
                # The directory's time goes with its entries, which are told themselves.
                new = replace(new, mtime_ns=old.mtime_ns)
            difference = compare_entries(old, new)
            if difference and not self._somebody_elses(path, old, new, circumstances, left, not names_now.get(path)):
                why = f", and cannot be put back: {self._why[path]}" if path in self._why else ""
                sentences.append(f"{os.fsdecode(path)!r} {difference}{why}.")
        return sentences

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        then, left = _surviving(self._wanted(before), circumstances), self._left(circumstances)
        was, outcome, touched = then.inside, NOTHING, set()
        for path in (*then.around, *(path for path, entry in was.items() if entry.is_directory)):
            sweep(path)
        now = _surviving(self._seen_before(then, self._look(then, time.time_ns())), circumstances).inside
        # Which were names of it before: its number may be another file's by now.
        as_before = [path for path, entry in was.items() if path in now and not compare_entries(entry, now[path])]
        twins = {was[path].inode: path for path in as_before if was[path].inode == now[path].inode}
        filled = {path for path, names in names_in(now).items() if names}
        # What has to go first, since a file may have become a directory; what is in a directory before it. Then the other way round.
        for path in sorted((path for path in now if path not in was), reverse=True) + sorted(was):
            old, new = was.get(path), now.get(path)
            difference = compare_entries(old, new)
            if not difference or (old is not None and new is not None and old.is_directory and new.is_directory):
                continue
            if self._somebody_elses(path, old, new, circumstances, left, path not in filled):
                if path not in circumstances.spared:
                    why = "it is held back with its package" if circumstances.is_held(path) else "that was not the transaction"
                    outcome += Outcome(notes=(f"{os.fsdecode(path)!r} {difference}: {why}, and is left.",))
                continue
            touched.add(os.path.dirname(path))
            outcome += self._converge(path, old, new, twins, circumstances)
        trees = [tree for tree in self._trees if _was_looked_at(tree, then) and not (circumstances.rebooted and _in_run(tree))]
        for path in _in_between(trees, then):
            if (now_there := read(path)) is not None and self._in_time(path, now_there.ctime_ns, circumstances):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        directories = {path: entry for path, entry in {**then.around, **was}.items() if entry.is_directory}
        names = names_in(was)
        for path in sorted(directories, reverse=True):
            try:
                outcome += self._settle(path, directories[path], names.get(path), path in touched, circumstances, left)
            except OSError as error:
                outcome += Outcome(failures=(f"The directory {os.fsdecode(path)!r} cannot be set back: {error.strerror}.",))
        return outcome

    def _converge(
        self, path: bytes, old: Entry | None, new: Entry | None, twins: Mapping[tuple[int, int], bytes], circumstances: Circumstances
    ) -> Outcome:
        kept = ""
        self._why.pop(path, None)
        try:
            if new is not None and not self._is_known(path) and circumstances.attic:
                # Nobody but a daemon is known to write here, and an admin may have been quicker.
                kept = aside(path, new, circumstances.attic)
            if old is None:
                remove(path)
            else:
                twin = twins.get(old.inode, b"") if old.digest else b""
                put_back(path, old, self._contents.get(old.digest) if old.digest else None, twin=twin)
        except OSError as error:
            self._why[path] = error.strerror or str(error)
            return NOTHING
        notes = (
            (f"{os.fsdecode(path)!r}, written while a step asked a daemon, is as before; what was there is kept as {kept}.",)
            if kept
            else ()
        )
        return Outcome(actions=(f"{os.fsdecode(path)} is as before",), notes=notes)

    def _settle(
        self, path: bytes, old: Entry, names: set[bytes] | None, touched: bool, circumstances: Circumstances, left: Manifest | None
    ) -> Outcome:
        """A directory's own mode and times, last. Not where somebody else's entries remain: its time is theirs then."""
        now = read(path)
        if now is None or not compare_entries(old, now) or path in circumstances.spared:
            return NOTHING
        if names is not None and names != {path + b"/" + name for name in os.listdir(path) if path + b"/" + name not in WITHOUT}:
            return NOTHING
        if not touched and left is not None:
            then = left.around.get(path) or left.inside.get(path)
            if then is None or then.mtime_ns != now.mtime_ns:
                return NOTHING
        elif not touched and not self._in_time(path, now.ctime_ns, circumstances):
            return NOTHING
        settle_directory(path, old)
        return NOTHING

    def _somebody_elses(
        self, path: bytes, old: Entry | None, new: Entry | None, circumstances: Circumstances, left: Manifest | None, empty: bool
    ) -> bool:
        if path in circumstances.spared:
            return True
        if circumstances.is_held(path) and not (old is not None and new is not None and old.is_directory and new.is_directory):
            return True
        if left is not None:
            then = left.inside.get(path)
            if not compare_entries(old, then):
                return True
            # A step may have written what a daemon had written before: then the undo of the files has put that back.
            by_the_undo = new is not None and 0 < circumstances.since <= new.ctime_ns and (empty or not new.is_directory)
            return bool(compare_entries(new, then)) and not by_the_undo
        if new is None:
            # Nothing tells when it went.
            return not self._is_known(path) and bool(circumstances.windows) and not circumstances.asked
        if new.is_directory and empty:
            # Of an empty directory nobody can say when it was made: an undo that died may have emptied it.
            return False
        return not self._in_time(path, new.ctime_ns, circumstances)

    def _in_time(self, path: bytes, ctime_ns: int, circumstances: Circumstances) -> bool:
        if circumstances.since and ctime_ns >= circumstances.since:
            return True
        return circumstances.by_a_step(ctime_ns) if self._is_known(path) else circumstances.by_a_daemon(ctime_ns)

    def _is_known(self, path: bytes) -> bool:
        while len(path) > 1:
            if path in self._known:
                return True
            path = os.path.dirname(path)
        return False

    def _wanted(self, before: Image) -> Manifest:
        found = load(self._contents, before["manifest"])
        if found is None:
            raise OSError(0, "the list of files that the probe etc made is missing or damaged: its files are not put back")
        return found

    def damage(self, image: Image) -> str:
        found = load(self._contents, image["manifest"])
        if found is None:
            return "the list of files that the probe etc made is missing or damaged"
        wrong = sorted(path for path, entry in found.inside.items() if entry.digest and self._contents.get(entry.digest) is None)
        return "the probe etc's image of %s is missing or damaged" % os.fsdecode(wrong[0]) if wrong else ""

    def _seen_before(self, then: Manifest, now: Manifest) -> Manifest:
        """Without trees of which the image of an older engine knows nothing: what is in them is not new."""
        unknown = tuple(tree + b"/" for tree in self._trees if not _was_looked_at(tree, then))
        if not unknown:
            return now
        return Manifest({path: entry for path, entry in now.inside.items() if not (path + b"/").startswith(unknown)}, now.around)

    def _left(self, circumstances: Circumstances) -> Manifest | None:
        return None if circumstances.left is None else self._manifest(circumstances.left["manifest"])

    def discard(self, kept: Iterable[Image]) -> None:
        digests = {image["manifest"] for image in kept} | {digest_of(self._last)}
        contents: set[str] = set()
        for digest in digests:
            found: Mapping[bytes, Entry] = self._manifest(digest).inside
            contents |= {entry.digest for entry in found.values()}
        self._contents.keep_only(digests | contents)


def _nearest(tree: bytes) -> bytes:
    """The directory above that is there."""
    while len(tree) > 1:
        tree = os.path.dirname(tree)
        if os.path.isdir(tree):
            break
    return tree


def _was_looked_at(tree: bytes, then: Manifest) -> bool:
    """A tree that was not there has the nearest directory above it in the manifest."""
    while len(tree) > 1:
        if tree in then.inside or tree in then.around:
            return True
        tree = os.path.dirname(tree)
    return False


def _in_between(trees: Iterable[bytes], then: Manifest) -> list[bytes]:
    """Directories above trees that were not there, innermost first."""
    found = []
    for tree in trees:
        path = os.path.dirname(tree)
        while len(path) > 1 and path not in then.around and path not in then.inside:
            found.append(path)
            path = os.path.dirname(path)
    return found


def _surviving(manifest: Manifest, circumstances: Circumstances) -> Manifest:
    """A boot begins with an empty /run, and fills it by itself."""
    if not circumstances.rebooted:
        return manifest
    inside, around = ({path: entry for path, entry in tree.items() if not _in_run(path)} for tree in (manifest.inside, manifest.around))
    return Manifest(inside, around)


def _in_run(path: bytes) -> bool:
    return path == b"/run" or path.startswith(b"/run/")
