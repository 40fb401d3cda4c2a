# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a call that waits to the images it needs: one handler per `does` of calls.py.

A handler returns, and the call may run; or it raises an error other than WillFail, and the caller must be answered EIO: no image, no change.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import typing as t

from .. import kernel
from ..errors import StepRefused
from ..filesystems import VALUES
from ..kernel import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Stat
from ..undolog import Value
from .calls import CALLS, FIXED, IOCTLS, NAMESPACE_MASK, OPEN_MASK, Call
from .images import CONTENTS_LEFT, Flight, Images, Inode, below, has_acl
from .notify import Note
from .resolve import Elsewhere, Memory, Place, Resolver

_AT_REMOVEDIR = 0x200
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_Arguments = tuple[int, int, int, int, int, int]
#: Errors of resolving which the call itself will meet
_FAILS = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.EFAULT, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.ESRCH))
#: On these a directory's link count is two and one for each subdirectory, so rmdir's failure can be foretold
_COUNTING = (b"ext4", b"xfs", b"tmpfs")


class WillFail(Exception):
    """The call will fail by itself, so it changes nothing."""


class Capture:
    """Handles calls for one transaction. Not thread-safe: the caller holds the transaction's lock around `handle`."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self._memory = Memory()
        self._values: set[bytes] = set()
        self._handlers: dict[str, t.Callable[[_Arguments, Call], None]] = {
            call.does: getattr(self, "_" + call.does) for call in CALLS if call.does != "refuse"
        }

    def resolver(self) -> Resolver:
        """A new step's resolver."""
        store = self.images.store

        def policy_of(dev: int) -> str | None:
            fs = store.file_system(dev)
            return None if fs is None else fs.policy

        return Resolver(self.images.reader, policy_of)

    def epoch(self, epoch: int, step: int) -> None:
        self._values.clear()
        self.images.epoch(epoch, step)

    def handle(self, note: Note, call: Call, step: int, resolver: Resolver) -> None:
        """Take all images that `call` needs."""
        images = self.images
        images.step, images.thread = step, note.thread
        self._resolver, self._thread = resolver, note.thread
        images.settle()
        try:
            self._handlers[call.does](note.arguments, call)
        except WillFail:
            pass
        except Elsewhere:
            images.tell("irreversible", "%s on a FUSE or network file system" % call.name)

    def inherited(self, process: int, step: int) -> None:
        """What a step's first process has open already for writing on 0 to 2 (a redirection outside the shim) is imaged before it runs."""
        self._resolver, self._thread = self.resolver(), process
        self.images.step, self.images.thread = step, process
        for dfd in range(3):
            with contextlib.suppress(WillFail, OSError):
                with open("/proc/%d/fdinfo/%d" % (process, dfd), encoding="ascii") as f:
                    flags = next(int(line.split()[1], 8) for line in f if line.startswith("flags:"))
                if flags & (os.O_WRONLY | os.O_RDWR):
                    self._open_place(self._inode(dfd), flags & ~os.O_CREAT)

    # -- arguments -------------------------------------------------------------------------------------------------------

    def _text(self, address: int) -> bytes:
        try:
            return self._memory.string(self._thread, address)
        except OSError as error:
            raise _foretold(error) from None

    def _bytes(self, address: int, length: int) -> bytes:
        try:
            return self._memory.read(self._thread, address, length)
        except OSError as error:
            raise _foretold(error) from None

    def _resolve(self, dfd: int, text: bytes, follow: bool) -> Place:
        if not text:
            raise WillFail
        try:
            return self._resolver.place(self._thread, dfd, text, follow=follow)
        except OSError as error:
            raise _foretold(error) from None

    def _place(self, arguments: _Arguments, dfd: int, path: int, follow: bool) -> Place:
        return self._resolve(AT_FDCWD if dfd < 0 else _signed(arguments[dfd]), self._text(arguments[path]), follow)

    def _inode(self, dfd: int) -> Place:
        """What the caller's descriptor is open on."""
        try:
            fd, state = self._resolver.inode(self._thread, dfd)
        except OSError as error:
            raise _foretold(error) from None
        return Place(fd, state, None, state)

    # -- names -----------------------------------------------------------------------------------------------------------

    def _create(self, arguments: _Arguments, call: Call) -> None:
        place = self._place(arguments, call.at[0], call.at[1], False)
        try:
            self._absent(place)
        finally:
            os.close(place.fd)

    def _link(self, arguments: _Arguments, call: Call) -> None:
        place = self._place(arguments, call.at[0], call.at[1], False)
        try:
            self._absent(place, receives_old=True)  # whether what it gets is old is not worth another look
        finally:
            os.close(place.fd)

    def _absent(self, place: Place, *, receives_old: bool = False) -> None:
        """Something is to be made at the place; where something is already, the call will fail."""
        if place.name is None or place.found is not None:
            return
        directory = self.images.directory(place.fd, place.parent)
        if directory is not None:
            self.images.touch_place(directory, place, receives_old=receives_old)
            self.images.touch_parent(directory, place)

    def _remove(self, arguments: _Arguments, call: Call) -> None:
        place = self._place(arguments, call.at[0], call.at[1], False)
        try:
            self._removed(place, bool(_value(arguments, call.at[2]) & _AT_REMOVEDIR))
        finally:
            os.close(place.fd)

    def _removed(self, place: Place, is_rmdir: bool) -> None:
        images, found, name = self.images, place.found, place.name
        if name is None or (found is None and not images.flights):
            return
        if found is not None and (found.dev != place.parent.dev or stat.S_ISDIR(found.mode) != is_rmdir or self._not_empty(found)):
            found = None
            if not images.flights:
                return
        directory = images.directory(place.fd, place.parent)
        if directory is None:
            return
        where = (directory.number, name)
        if images.flights:
            images.keep_arrivals(where)
        if found is not None:
            first = images.touch_place(directory, place)
            images.keep(directory, place, first)
            images.touch_parent(directory, place)

    def _not_empty(self, state: Stat) -> bool:
        fs = self.images.store.file_system(state.dev)
        return state.nlink > 2 and stat.S_ISDIR(state.mode) and fs is not None and fs.fstype in _COUNTING

    def _rename(self, arguments: _Arguments, call: Call) -> None:
        flags = _value(arguments, call.at[4])
        old = self._place(arguments, call.at[0], call.at[1], False)
        try:
            new = self._place(arguments, call.at[2], call.at[3], False)
            try:
                self._renamed(old, new, flags)
            finally:
                os.close(new.fd)
        finally:
            os.close(old.fd)

    def _renamed(self, old: Place, new: Place, flags: int) -> None:
        images, source, target = self.images, old.found, new.found
        if old.name is None or new.name is None or old.parent.dev != new.parent.dev:
            return
        if not images.flights and (source is None or (target is not None and (target.key == source.key or flags & _RENAME_NOREPLACE))):
            return
        origin, destination = images.directory(old.fd, old.parent), images.directory(new.fd, new.parent)
        exchange = bool(flags & _RENAME_EXCHANGE)
        moved: list[Inode] = []
        places = []
        if origin is not None:
            places.append((origin.number, old.name))
            moved += images.arrivals(places[0])
            first = images.touch_place(origin, old)
            images.touch_parent(origin, old)
            if source is not None:
                if destination is None:  # to a place that is not traced: it is lost from here
                    if stat.S_ISDIR(source.mode) and not images.born(origin.fs, source):
                        raise StepRefused("%s would be moved to a place that is not traced" % os.fsdecode(origin.path + b"/" + old.name))
                    images.keep(origin, old, first)
                moved += self._moved(old, origin.path)
        if destination is not None:
            places.append((destination.number, new.name))
            if images.flights:
                images.keep_arrivals(places[-1])
            first = images.touch_place(destination, new, receives_old=bool(moved))
            if target is not None and exchange:
                moved += self._moved(new, destination.path)
            elif target is not None:
                images.keep(destination, new, first)
            images.touch_parent(destination, new)
        images.fly(Flight(tuple(places), tuple(moved)))

    def _moved(self, place: Place, parent: bytes) -> list[Inode]:
        """The inode at the place, when it is an old one. A directory that moves may have its own times changed."""
        images, found, name = self.images, place.found, place.name
        assert found is not None
        assert name is not None
        fs = images.traced(found.dev)
        if fs is None or images.born(fs, found):
            return []
        inode = Inode(fs, images.reader.handle(place.fd, name), found, parent + b"/" + name)
        if stat.S_ISDIR(found.mode):
            images.touch_metadata(inode, images.key(found, place.fd, name))
        return [inode]

    def _bind(self, arguments: _Arguments, call: Call) -> None:
        self._bound(self._sockaddr(arguments[1], _signed(arguments[2])))

    def _bound(self, path: bytes) -> None:
        if path:
            place = self._resolve(AT_FDCWD, path, False)
            try:
                self._absent(place)
            finally:
                os.close(place.fd)

    def _connect(self, arguments: _Arguments, call: Call) -> None:
        self._connected(self._sockaddr(arguments[1], _signed(arguments[2])))

    def _connected(self, path: bytes) -> None:
        """Whom a step asks to act: PID 1, docker, and so on, whose doings the trace does not see."""
        if path:
            self.images.tell("peer", os.fsdecode(path))

    def _socketcall(self, arguments: _Arguments, call: Call) -> None:
        if arguments[0] in (2, 3):
            _socket, address, length = struct.unpack("<III", self._bytes(arguments[1], 12))
            (self._bound if arguments[0] == 2 else self._connected)(self._sockaddr(address, length))

    def _sockaddr(self, address: int, length: int) -> bytes:
        """The path of a UNIX socket's address; empty for other families and for abstract and unnamed sockets."""
        if not 2 < length <= 128:
            return b""
        raw = self._bytes(address, length)
        if struct.unpack_from("<H", raw)[0] != 1 or raw[2:3] == b"\0":
            return b""
        return raw[2:].split(b"\0")[0]

    # -- contents --------------------------------------------------------------------------------------------------------

    def _open(self, arguments: _Arguments, call: Call) -> None:
        self._opened(arguments, call.at[0], call.at[1], _value(arguments, call.at[2]))

    def _openat2(self, arguments: _Arguments, call: Call) -> None:
        flags, _mode, resolve = struct.unpack("<QQQ", self._bytes(arguments[2], 24))
        if not flags & OPEN_MASK:
            return
        if not resolve & kernel.RESOLVE_IN_ROOT:  # the other bits only make more paths fail
            self._opened(arguments, 0, 1, flags)
            return
        try:
            place = self._resolver.walk(
                self._thread, _signed(arguments[0]), self._text(arguments[1]), follow=not flags & os.O_NOFOLLOW, in_root=True
            )
        except OSError as error:
            raise _foretold(error) from None
        self._open_place(place, flags)

    def _opened(self, arguments: _Arguments, dfd: int, path: int, flags: int) -> None:
        if not flags & os.O_PATH:
            follow = not (flags & os.O_NOFOLLOW or (flags & os.O_CREAT and flags & os.O_EXCL))
            self._open_place(self._place(arguments, dfd, path, follow), flags)

    def _open_place(self, place: Place, flags: int) -> None:
        try:
            if self.images.flights:
                self._touch_arrivals(place, contents=True)
            if place.found is None:
                if flags & os.O_CREAT:
                    self._absent(place)
                return
            if flags & os.O_CREAT and flags & os.O_EXCL:
                return
            kind = stat.S_IFMT(place.found.mode)
            if kind == stat.S_IFBLK:
                self.images.tell(
                    "irreversible", "block device %d:%d opened for writing" % (os.major(place.found.rdev), os.minor(place.found.rdev))
                )
            elif kind == stat.S_IFREG:
                self._touch_contents(place)
        finally:
            os.close(place.fd)

    def _touch_arrivals(self, place: Place, *, contents: bool = False, xattrs: bool = False, flags: bool = False) -> None:
        if place.name is not None:
            directory = self.images.directory(place.fd, place.parent)
            if directory is not None:
                self.images.touch_arrivals((directory.number, place.name), contents=contents, xattrs=xattrs, flags=flags)

    def _truncate(self, arguments: _Arguments, call: Call) -> None:
        self._open_place(self._place(arguments, call.at[0], call.at[1], True), os.O_WRONLY)

    def _touch_contents(self, place: Place) -> None:
        """A regular file is about to be written in place."""
        images, found = self.images, place.found
        assert found is not None
        fs = images.store.file_system(found.dev)
        if fs is not None and fs.policy == VALUES:
            self._touch_value(place)
            return
        fs = images.traced(found.dev)
        if fs is None or images.born(fs, found) or found.attributes & kernel.STATX_ATTR_IMMUTABLE:
            return
        name, at = (place.name, 0) if place.name is not None else (b"", AT_EMPTY_PATH)
        key = images.key(found, place.fd, name, at)
        if images.contents_seen(key):
            return
        inode = self._inode_at(place, fs)
        if inode is not None and not below(inode.path, CONTENTS_LEFT):
            images.touch_contents(inode, key)

    def _inode_at(self, place: Place, fs: t.Any) -> Inode | None:
        """The inode with its path; None when it lies outside what is traced."""
        images, found = self.images, place.found
        assert found is not None
        if place.name is None or found.dev != place.parent.dev:
            handle = images.reader.handle(place.fd, place.name or b"", 0 if place.name else AT_EMPTY_PATH)
            path = images.path(fs, handle)
            if b"/.acid-store/" in path or below(path, (b"/var/lib/acid/store",)):  # the kernel may find a kept inode by its name in the store
                return Inode(fs, handle, found, os.readlink(b"/proc/self/fd/%d" % place.fd))
            return None if below(path, images.outside) else Inode(fs, handle, found, path)
        directory = images.directory(place.fd, place.parent)
        if directory is None:
            return None
        return Inode(fs, images.reader.handle(place.fd, place.name), found, directory.path + b"/" + place.name)

    def _touch_value(self, place: Place) -> None:
        """A setting of the kernel: /proc/sys or /sys. What cannot be read cannot be undone."""
        path = os.readlink(b"/proc/self/fd/%d" % place.fd)
        if place.name is not None:
            path += b"/" + place.name
        if not below(path, (b"/proc/sys", b"/sys")) or path in self._values:
            return
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                value = os.read(fd, 65536)
            finally:
                os.close(fd)
        except OSError:
            self.images.tell("irreversible", "write to %s, which cannot be read" % os.fsdecode(path))
            return
        self.images.log.append(Value(self.images.step, path, value))
        self._values.add(path)

    def _open_by_handle(self, arguments: _Arguments, call: Call) -> None:
        if not arguments[2] & OPEN_MASK:
            return
        size, kind = struct.unpack("<I4s", self._bytes(arguments[1], 8))
        if size > 128:
            return
        handle = kind + self._bytes(arguments[1] + 8, size)
        mount = self._inode(_signed(arguments[0]))
        try:
            fs = self.images.traced(mount.parent.dev)
            if fs is None:
                return
            try:
                fd = fs.open(handle)
            except OSError:
                return
            found = self.images.reader.stat(fd, b"", AT_EMPTY_PATH)
            self._open_place(Place(fd, found, None, found), arguments[2])
        finally:
            os.close(mount.fd)

    # -- metadata --------------------------------------------------------------------------------------------------------

    def _basic(self, arguments: _Arguments, call: Call) -> None:
        self._metadata(arguments, call)

    def _mode(self, arguments: _Arguments, call: Call) -> None:
        self._metadata(arguments, call, acl=True)

    def _mode_fd(self, arguments: _Arguments, call: Call) -> None:
        self._touch_metadata(self._inode(_signed(arguments[0])), acl=True)

    def _owner(self, arguments: _Arguments, call: Call) -> None:
        self._metadata(arguments, call, xattrs=True)  # chown drops capabilities

    def _xattr(self, arguments: _Arguments, call: Call) -> None:
        self._metadata(arguments, call, xattrs=True)

    def _flags(self, arguments: _Arguments, call: Call) -> None:
        self._metadata(arguments, call, flags=True)

    def _basic_fd(self, arguments: _Arguments, call: Call) -> None:
        self._touch_metadata(self._inode(_signed(arguments[0])))

    def _owner_fd(self, arguments: _Arguments, call: Call) -> None:
        self._touch_metadata(self._inode(_signed(arguments[0])), xattrs=True)

    _xattr_fd = _owner_fd

    def _metadata(self, arguments: _Arguments, call: Call, **what: bool) -> None:
        dfd, at_flags = call.at[0], _value(arguments, call.at[2])
        text = self._text(arguments[call.at[1]]) if arguments[call.at[1]] else b""
        if not text:
            if dfd >= 0:  # utimensat(fd, NULL), fchownat(fd, "", AT_EMPTY_PATH)
                self._touch_metadata(self._inode(_signed(arguments[dfd])), **what)
            return
        place = self._resolve(AT_FDCWD if dfd < 0 else _signed(arguments[dfd]), text, not at_flags & AT_SYMLINK_NOFOLLOW)
        self._touch_metadata(place, **what)

    def _touch_metadata(self, place: Place, *, xattrs: bool = False, flags: bool = False, acl: bool = False) -> None:
        """`acl`: chmod changes an ACL too, where there is one."""
        images, found = self.images, place.found
        try:
            if images.flights:
                self._touch_arrivals(place, xattrs=xattrs or acl, flags=flags)
            if found is None:
                return
            fs = images.traced(found.dev)
            if fs is None or images.born(fs, found):
                return
            name, at = (place.name, 0) if place.name is not None else (b"", AT_EMPTY_PATH)
            key = images.key(found, place.fd, name, at)
            xattrs = xattrs or (acl and has_acl(place.fd, name))
            if images.metadata_seen(key, xattrs=xattrs, flags=flags):
                return
            inode = self._inode_at(place, fs)
            if inode is not None:
                images.touch_metadata(inode, key, xattrs=xattrs, flags=flags)
        finally:
            os.close(place.fd)

    def _ioctl(self, arguments: _Arguments, call: Call) -> None:
        request = arguments[1] & 0xFFFFFFFF
        does = IOCTLS.get(request)
        if does == "flags_fd":
            self._touch_metadata(self._inode(_signed(arguments[0])), flags=True)
        elif does == "content_fd":
            self._open_place(self._inode(_signed(arguments[0])), os.O_RDWR)
        elif does is not None:
            self.images.tell("irreversible", "ioctl %#x (%s)" % (request, does))

    # -- the rest --------------------------------------------------------------------------------------------------------

    def _mounts(self, arguments: _Arguments, call: Call) -> None:
        """How paths resolve is about to change; the table itself is the mounts probe's."""
        self._resolver.careful = True
        self.images.store.forget_unknown()

    def _leaves_root(self, arguments: _Arguments, call: Call) -> None:
        self._resolver.careful = True

    _unshare = _clone = _leaves_root

    def _clone3(self, arguments: _Arguments, call: Call) -> None:
        (flags,) = struct.unpack("<Q", self._bytes(arguments[0], 8))
        if flags & NAMESPACE_MASK:
            self._resolver.careful = True

    def _irreversible(self, arguments: _Arguments, call: Call) -> None:
        self.images.tell("irreversible", call.name)

    def _probed(self, arguments: _Arguments, call: Call) -> None:
        """A probe captured it at begin."""

    def _mq_open(self, arguments: _Arguments, call: Call) -> None:
        if arguments[1] & os.O_CREAT:
            self.images.tell("irreversible", "POSIX message queue made")

    def _adjtime(self, arguments: _Arguments, call: Call) -> None:
        if self._bytes(arguments[call.at[0]], 4) != bytes(4):  # modes: 0 only reads the clock
            self.images.tell("irreversible", call.name)

    def _bpf(self, arguments: _Arguments, call: Call) -> None:
        if arguments[0] == 6:  # BPF_OBJ_PIN
            self.images.tell("irreversible", "bpf object pinned")

    def _sysv(self, arguments: _Arguments, call: Call) -> None:
        if arguments[call.at[0]] & 0o1000:  # IPC_CREAT
            self.images.tell("irreversible", "%s made a System V object" % call.name)


def _foretold(error: OSError) -> BaseException:
    """WillFail when the call will meet this error itself; else the error."""
    return WillFail() if error.errno in _FAILS else error


def _signed(value: int) -> int:
    """A 32-bit int argument as the caller meant it."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def _value(arguments: _Arguments, at: int) -> int:
    return int(at) if type(at) is FIXED else arguments[at]
