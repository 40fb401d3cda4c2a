# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Before-images of places and inodes: what is put into the undo log and the store, once per epoch (I1, docs/adr/0001).

A *place* is (directory, name). Images are taken the first time that an epoch touches a place or an inode, so the order in which two
threads' calls then run does not matter: both images are from before both. Nothing is taken for inodes born in the epoch, nor for places in
directories that were: at the epoch's start they did not exist.

A call goes on running after its notification is answered; turns.py sees to it that none moves what another one's images were looked up for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
import typing as t

from .. import attributes, kernel, records
from ..errors import Denied, StepRefused
from ..filesystems import FOREIGN, NAMED, TRACED, UNKNOWN, FileSystem
from ..kernel import AT_EMPTY_PATH, Reader, Stat
from ..model import ACTED, ASKED, IRREVERSIBLE
from ..records import (
    INLINE,
    LINK,
    NOTHING,
    Content,
    DirectorySeen,
    Dropped,
    Entry,
    EpochStarted,
    FileSystemSeen,
    Flags,
    Keep,
    Xattrs,
)
from ..store import Store
from ..storedirs import HIDDEN
from ..undolog import Writer
from ..xattrs import pairs_of_mode, read_xattrs
from .bodies import contents_of, target_of
from .encounters import Encounters
from .resolve import Place
from .scope import CONTENTS_LEFT, OUTSIDE_PATHS, below, is_in_store
from .subjects import Aspects, Directory, Inode, InStore, Key, Observed, Where
from .unlisted import OUT_OF_REACH, About, Reached, about

#: A kept link keeps a lock file alive for those who wait for its end (TRACE.md 12), so what is as small as one is copied.
SMALL = 1024


class _Pending(t.NamedTuple):
    """A link that was kept for a call: `directory` and `name` are the place that the inode `key` is to lose by it."""

    fs: FileSystem
    number: int
    links_before: int
    handle: bytes
    key: Key
    directory: bytes
    name: bytes


class Images:
    """Takes images for one transaction. The caller holds the transaction's lock, and sets `step`, `thread` and `raced` before each call."""

    def __init__(
        self,
        store: Store,
        log: Writer,
        *,
        outside: t.Sequence[bytes],
        next_directory: int,
        observe: t.Callable[[Observed], None],
        deny: bool = False,
    ) -> None:
        self.store, self.log, self.reader = store, log, Reader()
        self.outside = OUTSIDE_PATHS + tuple(outside)
        self._observe = observe
        self._deny = deny
        self._next_directory = next_directory
        self._directories: dict[Key, Directory] = {}
        self.by_number: dict[int, Directory] = {}
        self._file_systems: set[int] = set(store.by_number)
        self._observed: set[tuple[str, str, int]] = set()
        self.epoch_start = self._offset = 0
        self.step = self.thread = 0
        #: whether calls of other threads may be running
        self.raced = False
        #: what earlier epochs had hold of; what others do to it in between is somebody else's change (docs/adr/0025)
        self._met = Encounters(log)
        #: of each thread's last call: the link that was kept for it, to be dropped if it has failed
        self.pending: dict[int, _Pending] = {}
        self._forget()

    # -- epochs ----------------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self.seen_places: set[Where] = set()
        #: how many of them were noted when a step was sealed whose epoch goes on
        self.noted_places = 0
        #: paths of files that were about to be written in place
        self.written: list[bytes] = []
        self._seen_basic: set[Key] = set()
        self._seen_xattrs: set[Key] = set()
        self._seen_flags: set[Key] = set()
        self._seen_contents: set[Key] = set()
        self._kept: set[Key] = set()
        self._modes: dict[Key, int] = {}
        #: directories born in the epoch that got an inode from before it
        self.received_old: set[int] = set()

    def epoch(self, epoch: int, step: int) -> None:
        """A new epoch begins. The fine clock is never behind the one that stamps inodes; the coarse one is, since Linux 6.13 hands out
        fine stamps too. What is born in the very tick in which the epoch begins may be taken for old, which costs an image and no more."""
        self.settle_all()
        self._met.remember(self.seen_places, self._seen_basic, self._kept)
        self._forget()
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.epoch_start = time.clock_gettime_ns(time.CLOCK_REALTIME)
        self._offset = self.epoch_start - boot
        if step:
            self._met.began(self.epoch_start)
        self.log.append(EpochStarted(epoch, step))

    def forget(self) -> None:
        """The transaction ends: the memory of 100,000 places is worth having back before the undo."""
        self._met.forget()
        self._forget()

    def goes_on(self) -> None:
        """Another agent had it before: what its steps had hold of is in the log alone."""
        self._met.knows_all = False

    def born(self, fs: FileSystem, state: Stat) -> bool:
        """Whether the inode was made in this epoch. The upper bound keeps out birth times in the future, from a clock that was wrong. It
        goes by a clock that nobody sets: were one that is behind set right in the course of a step, all newer files would be newborn."""
        return fs.birth_times and self.epoch_start < state.btime <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._offset

    def tell(self, kind: str, text: str) -> None:
        """Say what the trace saw. Raises Denied for what no image can undo, where the transaction's policy forbids it."""
        if kind == IRREVERSIBLE and self._deny:
            raise Denied(text)
        known = (kind, text, self.step if kind in (ASKED, ACTED) else 0)
        if known not in self._observed:
            self._observed.add(known)
            self._observe(Observed(kind, text, self.step))

    # -- what is there ---------------------------------------------------------------------------------------------------

    def look_up(self, dev: int, fd: int, name: bytes = b"") -> FileSystem | str:
        """The file system where images are to be taken of an inode: what `fd` is, or has by that `name`. Else why none are: OUTSIDE,
        VALUES, or NAMED when it has been. This is the one place where that is decided (I1): what nobody can tell is refused here, so that
        no answer means that nobody knows."""
        fs = self.store.file_system(dev)
        if fs is not None and fs.policy == TRACED:
            return self._known_to_the_log(fs)
        if fs is not None:
            found = About(fs.policy, "%s file system at %s" % (fs.fstype.decode(), os.fsdecode(fs.mount_point)))
        else:
            fs = self.store.file_system(dev, self._handle_or_nothing(fd, name))
            if fs is not None:
                return self._known_to_the_log(fs)
            found = about(self.reader, Reached(dev, fd, name), self.thread, self.epoch_start)
        if found.policy == UNKNOWN:
            raise StepRefused("nothing on the %s can be undone: no handle leads there" % found.what, hint="Keep the play away from it.")
        if found.policy in (FOREIGN, OUT_OF_REACH, NAMED):
            self.tell(IRREVERSIBLE, "changes on the %s" % found.what)
            return NAMED
        return found.policy

    def traced(self, dev: int, fd: int, name: bytes = b"") -> FileSystem | None:
        """Likewise; None where no images are to be taken, on purpose."""
        found = self.look_up(dev, fd, name)
        return None if isinstance(found, str) else found

    def _known_to_the_log(self, fs: FileSystem) -> FileSystem:
        if fs.number not in self._file_systems:
            self.log.append(FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point, fs.identity))
            self.store.room.take_reserve(fs)  # where it finds no room the call is refused, and the next one asks again
            self._file_systems.add(fs.number)
        return fs

    def _handle_or_nothing(self, fd: int, name: bytes) -> bytes:
        try:
            return self.reader.handle(fd, name, 0 if name else AT_EMPTY_PATH)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EOVERFLOW):
                raise
            return b""

    def key(self, state: Stat, dirfd: int, name: bytes, flags: int = 0) -> Key:
        return state[:3] if state.btime else (state.dev, state.ino, self.reader.handle(dirfd, name, flags))

    def directory(self, fd: int, state: Stat) -> Directory | None:
        """The directory of `fd`, known to the log; None where no images are taken. Raises InStore."""
        known = self._directories.get(state[:3])  # keys without a birth time look otherwise
        if known is not None:
            return self._unless_outside(known)
        fs = self.traced(state.dev, fd)
        if fs is None:
            return None
        key = self.key(state, fd, b"", AT_EMPTY_PATH)
        known = self._directories.get(key)
        if known is not None:
            return self._unless_outside(known)
        handle = self.reader.handle(fd, b"", AT_EMPTY_PATH)
        path = self.path(fs, handle)
        in_store = is_in_store(fs, path)
        known = Directory(
            self._next_directory, fs, path, in_store or below(path, self.outside), in_store, below(path, CONTENTS_LEFT), handle
        )
        self._next_directory += 1
        self._directories[key] = self.by_number[known.number] = known
        if not known.outside:
            self.log.append(DirectorySeen(known.number, fs.number, handle, path))
        return self._unless_outside(known)

    def refuse_store(self, place: Place) -> None:
        """Raises InStore where the place holds the whole store of its file system (I7: what an undo goes by is no step's to change)."""
        if place.name == HIDDEN and place.found is not None and stat.S_ISDIR(place.found.mode):
            fs = self.store.file_system(place.parent.dev)
            if fs is not None and fs.mount_fd >= 0 and os.fstat(fs.mount_fd).st_ino == place.parent.ino:
                raise InStore("%s: before-images lie there" % os.fsdecode(HIDDEN))

    def refuse_in_store(self, place: Place) -> None:
        """Likewise what lies in one, for calls that need no image otherwise."""
        fs = self.store.file_system(place.parent.dev)
        if fs is None or fs.policy != TRACED:
            return
        try:
            path = os.readlink(b"/proc/self/fd/%d" % place.fd)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            path = self.path(fs, self.reader.handle(place.fd, b"", AT_EMPTY_PATH))
        if is_in_store(fs, path):
            raise InStore("%s: before-images lie there" % os.fsdecode(fs.mount_point))

    def refuse_new_in_store(self, place: Place) -> None:
        """Likewise for what was born in the epoch: so is a store of which the epoch is the first to need it, and each copy in it."""
        if place.name is not None and place.found is not None and place.found.dev == place.parent.dev:
            with contextlib.suppress(OSError):  # another thread has just removed the directory: it is no store's
                self.directory(place.fd, place.parent)

    @staticmethod
    def _unless_outside(known: Directory) -> Directory | None:
        if known.in_store:
            raise InStore("%s: before-images lie there, which no step may change" % os.fsdecode(known.path))
        return None if known.outside else known

    @staticmethod
    def path(fs: FileSystem, handle: bytes) -> bytes:
        fd = fs.open(handle)
        try:
            return fs.path_of(fd)
        finally:
            os.close(fd)

    # -- places ----------------------------------------------------------------------------------------------------------

    def touch_place(self, directory: Directory, place: Place, *, receives_old: bool = False) -> bool:
        """Image of what the place holds; whether the inode that is there is part of it, so that it must be kept. `receives_old`: the place
        is about to get an inode that was there before the epoch, which must lose this name again, also where the directory was born in the
        epoch."""
        name, found = place.name or b"", place.found
        where = (directory.number, name)
        if receives_old:
            self.received_old.add(directory.number)
        if where in self.seen_places:
            return False
        is_inside_newborn = self.born(directory.fs, place.parent)
        if is_inside_newborn and not receives_old and (found is None or self.born(directory.fs, found)):
            return False
        if not is_inside_newborn and self._met.place_before(where, place.parent):
            self._met.place(self.step, directory, place, self.reader)
        if found is None or is_inside_newborn:  # at the epoch's start there was no such place
            self.log.append(Entry(self.step, directory.number, 0, directory.fs.number, b"", name))
            self.seen_places.add(where)
            return False
        self.log.append(Entry(self.step, directory.number, found.mode, directory.fs.number, self.reader.handle(place.fd, name), name))
        self.seen_places.add(where)
        return True

    def touch_parent(self, directory: Directory, place: Place) -> None:
        """A change of a place changes its directory's times."""
        parent = place.parent
        key = parent[:3] if parent.btime else self.key(parent, place.fd, b"", AT_EMPTY_PATH)
        if key not in self._seen_basic and not self.born(directory.fs, parent):
            self.basic(directory.fs, self.reader.handle(place.fd, b"", AT_EMPTY_PATH), parent, key, directory.path)

    def keep(self, directory: Directory, place: Place, imaged: bool) -> None:
        """The inode at the place is about to lose this name. One that was born in the epoch need not be kept, unless it is `imaged` as what
        the place held."""
        name, found = place.held()
        if not imaged and self.born(directory.fs, found):
            return
        key = self.key(found, place.fd, name)
        if key in self._kept:
            self._rely_on(key)
            return
        handle = self.reader.handle(place.fd, name)
        self._keep_inode(Inode(directory.fs, handle, found, directory.path + b"/" + name), key, directory, place)

    def _keep_inode(self, inode: Inode, key: Key, directory: Directory, place: Place) -> None:
        """Keep it by a link where it has other names or is large, else in the log."""
        fs, handle, state, _path = inode
        kind = stat.S_IFMT(state.mode)
        how, number, data = NOTHING, 0, b""
        if fs.links and kind != stat.S_IFDIR and (state.nlink > 1 or (kind == stat.S_IFREG and state.size > SMALL)):
            how, number = self._keep_link(inode, place)
        if how == NOTHING:
            if kind == stat.S_IFLNK:
                how, data = INLINE, target_of(fs, handle)
            elif kind == stat.S_IFREG:
                how, number, data = contents_of(self.store, fs, handle, state.size)
            self.touch_metadata(inode, key, Aspects(True, kind in (stat.S_IFREG, stat.S_IFDIR)), kept=True)
        if key not in self._seen_basic and self._met.inode_before(key, state):
            self._met.inode(self.step, fs, handle, state, inode.path)
        self.log.append(Keep(self.step, fs.number, handle, how, number, data))
        self._kept.add(key)
        if how == LINK:
            self.pending[self.thread] = _Pending(fs, number, state.nlink, handle, key, directory.handle, place.name or b"")

    def _keep_link(self, inode: Inode, place: Place) -> tuple[int, int]:
        try:
            return LINK, self.store.keep_link(inode.fs, place.fd, place.held()[0], inode.handle)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                raise
            return NOTHING, 0

    def move_into_store(self, directory: Directory, place: Place) -> None:
        """The agent takes the inode away from its place itself, whole: an undo that makes the place true moves it back."""
        name, _found = place.held()
        self.touch_place(directory, place)
        self.touch_parent(directory, place)
        if self.store.durable:
            self.log.sync()
        self.store.take(directory.fs, directory.handle, name)

    def mount_of(self, fd: int) -> int:
        """The id of the mount by which `fd` was opened."""
        self.reader.stat(fd, b"", AT_EMPTY_PATH)
        return self.reader.mount_id()

    # -- inodes ----------------------------------------------------------------------------------------------------------

    def basic(self, fs: FileSystem, handle: bytes, state: Stat, key: Key, path: bytes) -> None:
        """Image of owner, mode and times of an old inode that is not `basic_seen`."""
        _dev, _ino, _btime, mode, _nlink, uid, gid, size, rdev, atime, mtime, _ctime, _attributes = state
        self.log.append_packed(records.BASIC, records.basic(self.step, fs.number, handle, mode, uid, gid, rdev, size, atime, mtime, path))
        self._seen_basic.add(key)
        if self._met.inode_before(key, state):
            self._met.inode(self.step, fs, handle, state, path)

    def basic_seen(self, key: Key) -> bool:
        return key in self._seen_basic

    def mode_changes(self, key: Key, mode: int) -> None:
        """chmod is about to change the mode, and with it an ACL. To ask each inode for one would cost more than to remember."""
        self._modes.setdefault(key, mode)

    def metadata_seen(self, key: Key, aspects: Aspects) -> bool:
        xattrs, flags = aspects
        return key in self._seen_basic and (not xattrs or key in self._seen_xattrs) and (not flags or key in self._seen_flags)

    def touch_metadata(self, inode: Inode, key: Key, aspects: Aspects, *, kept: bool = False) -> None:
        """Image of owner, mode and times, and of the other aspects that may change. `kept`: the inode is kept in the log, so that it has
        none of those that are not recorded."""
        fs, handle, state, path = inode
        xattrs, flags = aspects
        if xattrs and key not in self._seen_xattrs:
            fd = fs.open(handle)
            try:
                pairs = read_xattrs(fd)
            finally:
                os.close(fd)
            if key in self._modes:
                pairs = pairs_of_mode(pairs, self._modes[key])
            if pairs or not kept:
                self.log.append(Xattrs(self.step, fs.number, handle, pairs))
                self._seen_xattrs.add(key)
        if flags and key not in self._seen_flags and stat.S_IFMT(state.mode) in (stat.S_IFREG, stat.S_IFDIR):
            fd = fs.open(handle, os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME)
            try:
                found, others = kernel.get_flags(fd), attributes.get(fd)
            finally:
                os.close(fd)
            if found or others not in (None, attributes.NONE) or not kept:
                self.log.append(Flags(self.step, fs.number, handle, found, others))
                self._seen_flags.add(key)
        if key not in self._seen_basic:
            self.basic(fs, handle, state, key, path)

    def contents_seen(self, key: Key) -> bool:
        return key in self._seen_contents

    def touch_contents(self, inode: Inode, key: Key) -> None:
        """A regular file is about to be written in place. A write drops capabilities, so the extended attributes go with it."""
        if key in self._seen_contents:
            return
        self.touch_metadata(inode, key, Aspects(xattrs=True))
        fs, handle, state, _path = inode
        how, number, data = contents_of(self.store, fs, handle, state.size)
        self.log.append(Content(self.step, fs.number, handle, how, number, state.size, data))
        self._seen_contents.add(key)
        self.written.append(inode.path)

    # -- failed calls ----------------------------------------------------------------------------------------------------

    def _rely_on(self, key: Key) -> None:
        """A second call counts on the link that was kept for a first one: it stays, even if the first call turns out to have failed."""
        for thread in [thread for thread, pending in self.pending.items() if pending.key == key]:
            del self.pending[thread]

    def settle(self) -> None:
        """The thread's last call has ended. Where it failed, its kept link goes again: nobody shall see a link count that is one too
        high (TRACE.md 13)."""
        pending = self.pending.pop(self.thread, None)
        if pending is None or self.store.links_of(pending.fs, pending.number) <= pending.links_before or not self._holds(pending):
            return
        self.log.append(Dropped(pending.fs.number, pending.handle, pending.number))
        self._kept.discard(pending.key)
        with contextlib.suppress(PermissionError):  # another thread has set chattr +i meanwhile: the end of the undo drops it
            self.store.drop_link(pending.fs, pending.number)

    def _holds(self, pending: _Pending) -> bool:
        """Whether the inode still has the name that the call was to take. Its link count alone does not tell: somebody else may have given
        it one more. (Where he took one instead, a link stays that need not; it goes with the transaction.)"""
        try:
            fd = pending.fs.open(pending.directory)
        except OSError:  # the directory is no more
            return False
        try:
            found = self.reader.stat_or_none(fd, pending.name)
            return found is not None and self.reader.handle(fd, pending.name) == pending.handle
        except FileNotFoundError:
            return False
        finally:
            os.close(fd)

    def settle_all(self, threads: t.Collection[int] | None = None) -> None:
        """The calls of all these threads have ended, or of all there are."""
        for thread in list(self.pending):
            if threads is None or thread in threads:
                self.thread = thread
                self.settle()
