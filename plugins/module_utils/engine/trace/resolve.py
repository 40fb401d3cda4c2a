# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a call's arguments to a place: the caller's memory, and its paths resolved as the kernel would for the caller.

Two ways. The quick one is a single openat2 that refuses every symlink; it holds while no process of the step has left the host's root or
mount namespace. The careful one walks component by component by fd, inside the caller's root and namespace: it puts the caller's ids for
/proc/self (TRACE.md 3), and stops before it would ask a FUSE or network file system anything (TRACE.md 9).

A read that races with the caller's death can only yield a path that the call will never use: its image is true and does no harm.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import typing as t

from .. import kernel
from ..filesystems import FOREIGN, VALUES
from ..kernel import AT_EMPTY_PATH, Reader, Stat

_PAGE = 4096
_LINK_LIMIT = 40  # MAXSYMLINKS
_PATH_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# no O_NOFOLLOW for openat2: with it a symlink at the end is ENOTDIR, as if the call had to fail, where RESOLVE_NO_SYMLINKS says ELOOP
_IOV, _TWO_IOV = struct.Struct("<QQ"), struct.Struct("<QQQQ")
#: bytes that are read of each of two strings: most paths are shorter
_SHORT = 256


class Place(t.NamedTuple):
    """Where a path leads: `name` in the directory of `fd` (to be closed), which is `parent`; `found` is what is there now.

    name is None when the path leads to an inode by a magic link or to a root: then `fd` is the inode itself and `found` its state.
    """

    fd: int
    parent: Stat
    name: bytes | None
    found: Stat | None

    def held(self) -> tuple[bytes, Stat]:
        """(name, what is there), for a place that is known to hold something under a name."""
        if self.name is None or self.found is None:
            raise ValueError("an empty place: %r" % (self,))
        return self.name, self.found


class Elsewhere(Exception):
    """The path leads into a FUSE or network file system."""


class Memory:
    """Reads other processes' memory by process_vm_readv: unlike an open /proc/<pid>/mem it never sees a mm from before an exec."""

    def __init__(self) -> None:
        self._bytes = bytearray(2 * _PAGE)
        self._buffer = (ctypes.c_char * (2 * _PAGE)).from_buffer(self._bytes)
        self._local = ctypes.create_string_buffer(_IOV.pack(ctypes.addressof(self._buffer), 2 * _PAGE))
        self._remote = ctypes.create_string_buffer(32)
        self._one = ctypes.byref(self._local), 1, ctypes.byref(self._remote), 1, 0
        self._two = ctypes.byref(self._local), 1, ctypes.byref(self._remote), 2, 0
        self._read = kernel.libc.process_vm_readv
        self._read.restype = ctypes.c_ssize_t

    def _fetch(self, tid: int, address: int, length: int) -> int:
        _IOV.pack_into(self._remote, 0, address, length)
        done: int = self._read(tid, *self._one)
        if done < 0:
            raise kernel.fail("memory of thread %d" % tid)
        return done

    def read(self, tid: int, address: int, length: int) -> bytes:
        """`length` bytes (at most 8192). OSError EFAULT where the caller has no such memory."""
        return bytes(self._bytes[: self._fetch(tid, address, length)])

    def string(self, tid: int, address: int) -> bytes:
        """The string at `address`, of at most PATH_MAX bytes. OSError EFAULT, ENAMETOOLONG."""
        first = _PAGE - (address & (_PAGE - 1))
        _IOV.pack_into(self._remote, 0, address, first)
        done = self._read(tid, *self._one)
        if done < 0:
            raise kernel.fail("memory of thread %d" % tid)
        self._bytes[done] = 0
        head: bytes = self._buffer.value
        if len(head) < done:
            return head
        done = self._fetch(tid, address + first, _PAGE)
        end = self._bytes.find(0, 0, done)
        if end < 0 or len(head) + end > _PAGE:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        return head + bytes(self._bytes[:end])

    def strings(self, tid: int, first: int, second: int) -> tuple[bytes, bytes]:
        """Both strings, by one call where they are short: the call takes more time than all else that is done for a rename."""
        one, two = min(_SHORT, _PAGE - (first & (_PAGE - 1))), min(_SHORT, _PAGE - (second & (_PAGE - 1)))
        _TWO_IOV.pack_into(self._remote, 0, first, one, second, two)
        if self._read(tid, *self._two) == one + two:
            data = self._bytes
            end, last = data.find(0, 0, one), data.find(0, one, one + two)
            if end >= 0 and last >= 0:
                return bytes(data[:end]), bytes(data[one:last])
        return self.string(tid, first), self.string(tid, second)


def is_elsewhere(process: int) -> bool:
    """Whether the process has another root or mount namespace than this one: a session of pam_namespace, or of an sshd with PrivateTmp."""
    try:
        root = os.stat("/proc/%d/root/" % process)
        namespace = os.stat("/proc/%d/ns/mnt" % process)
    except OSError:  # it is about to be gone
        return True
    return not (os.path.samestat(root, os.stat("/")) and os.path.samestat(namespace, os.stat("/proc/self/ns/mnt")))


class Resolver:
    """Resolves paths for the threads of one step. Not thread-safe: buffers are reused.

    `careful` is set once a process of the step has left the root or namespace, or has mounted something.
    """

    def __init__(self, reader: Reader, policy_of: t.Callable[[int, int], str | None]) -> None:
        self.reader, self._policy_of = reader, policy_of
        self.careful = False
        #: whether the last `place` met no symlink and took no care
        self.quick = False

    # -- quick -----------------------------------------------------------------------------------------------------------

    def place(self, tid: int, dfd: int, path: bytes, *, follow: bool) -> Place:
        """Where `path` leads for thread `tid`, relative to its directory fd `dfd` (AT_FDCWD: its working directory).

        OSError as the call itself would give: it provably fails, so no image is needed.
        """
        self.quick = False
        if self.careful:
            return self.walk(tid, dfd, path, follow=follow)
        head, slash, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            return self.walk(tid, dfd, path, follow=follow)
        try:
            if not path.startswith(b"/"):
                base = self._base(tid, dfd)
                if slash:
                    try:
                        fd = kernel.openat2(base, head, _PATH_DIRECTORY, kernel.RESOLVE_NO_SYMLINKS)
                    finally:
                        os.close(base)
                else:
                    fd = base
            else:
                fd = kernel.openat2(kernel.AT_FDCWD, head or b"/", _PATH_DIRECTORY, kernel.RESOLVE_NO_SYMLINKS)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return self.walk(tid, dfd, path, follow=follow)
            raise
        try:
            parent = self.reader.stat(fd, b"", AT_EMPTY_PATH)
            found = self.reader.stat_or_none(fd, name)
        except BaseException:
            os.close(fd)
            raise
        if found is not None and follow and stat.S_ISLNK(found.mode):
            os.close(fd)
            return self.walk(tid, dfd, path, follow=True)
        self.quick = True
        return Place(fd, parent, name, found)

    def _base(self, tid: int, dfd: int) -> int:
        link = "/proc/%d/cwd" % tid if dfd == kernel.AT_FDCWD else "/proc/%d/fd/%d" % (tid, dfd)
        try:
            return os.open(link, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def state(self, tid: int, dfd: int) -> Stat:
        """What the thread's descriptor `dfd` is open on. OSError ENOENT where it is not open."""
        return self.reader.stat(kernel.AT_FDCWD, b"/proc/%d/fd/%d" % (tid, dfd), kernel.AT_STATX_DONT_SYNC)

    def inode(self, tid: int, dfd: int) -> tuple[int, Stat]:
        """(O_PATH fd to be closed, state) of what the thread's descriptor `dfd` is open on. OSError EBADF."""
        try:
            fd = os.open("/proc/%d/fd/%d" % (tid, dfd) if dfd != kernel.AT_FDCWD else "/proc/%d/cwd" % tid, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
        try:
            return fd, self.reader.stat(fd, b"", AT_EMPTY_PATH | kernel.AT_STATX_DONT_SYNC)
        except BaseException:
            os.close(fd)
            raise

    # -- careful ---------------------------------------------------------------------------------------------------------

    def walk(self, tid: int, dfd: int, path: bytes, *, follow: bool, in_root: bool = False) -> Place:
        """Like `place`, component by component. `in_root`: the directory fd is the root (openat2's RESOLVE_IN_ROOT)."""
        root = self._base(tid, dfd) if in_root else os.open("/proc/%d/root" % tid, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            here = os.dup(root) if in_root or path.startswith(b"/") else self._base(tid, dfd)
            walker = _Walk(self.reader, self._policy_of, tid, root, here)
            try:
                return walker.to(path, follow)
            except BaseException:
                walker.close()
                raise
        finally:
            os.close(root)


class _Walk:
    """One careful resolution: `here` is the directory reached so far."""

    def __init__(self, reader: Reader, policy_of: t.Callable[[int, int], str | None], tid: int, root: int, here: int) -> None:
        self._reader, self._policy_of = reader, policy_of
        self._tid, self._root, self._here = tid, root, here
        self._links = 0
        self._policies: dict[int, str | None] = {}

    def close(self) -> None:
        os.close(self._here)

    def _stat(self, fd: int, name: bytes, flags: int) -> Stat:
        return self._reader.stat(fd, name, flags | kernel.AT_STATX_DONT_SYNC)

    def _is_root(self) -> bool:
        here = self._stat(self._here, b"", AT_EMPTY_PATH)
        mount = self._reader.mount_id()
        return here.key == self._stat(self._root, b"", AT_EMPTY_PATH).key and mount == self._reader.mount_id()

    def _enter(self, fd: int) -> None:
        os.close(self._here)
        self._here = fd

    def _policy(self, dev: int) -> str | None:
        if dev not in self._policies:
            self._policies[dev] = self._policy_of(dev, self._tid)
        return self._policies[dev]

    def _check(self, dev: int) -> None:
        if self._policy(dev) == FOREIGN:
            raise Elsewhere

    def to(self, path: bytes, follow: bool) -> Place:
        todo = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
        slash = path.endswith((b"/", b"/."))
        while todo:
            part = todo.pop()
            here = self._stat(self._here, b"", AT_EMPTY_PATH)
            self._check(here.dev)
            if part == b"..":
                if not self._is_root():
                    self._enter(os.open("..", _PATH_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._here))
                continue
            try:
                found: Stat | None = self._stat(self._here, part, kernel.AT_SYMLINK_NOFOLLOW)
            except FileNotFoundError:
                found = None
            if found is not None and found.dev != here.dev:
                self._check(found.dev)
            if found is not None and stat.S_ISLNK(found.mode) and (todo or follow or slash):
                self._links += 1
                if self._links > _LINK_LIMIT:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = self._link(part, here.dev)
                if target is None:
                    if not todo:
                        return self._whole()
                    continue
                if target.startswith(b"/"):
                    self._enter(os.dup(self._root))
                todo += [piece for piece in reversed(target.split(b"/")) if piece not in (b"", b".")]
                continue
            if not todo:
                return Place(self._here, here, part, found)
            if found is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._enter(os.open(part, _PATH_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._here))
        return self._whole()

    def _whole(self) -> Place:
        state = self._stat(self._here, b"", AT_EMPTY_PATH)
        self._check(state.dev)
        return Place(self._here, state, None, state)

    def _link(self, name: bytes, dev: int) -> bytes | None:
        """The target's text; or None after a magic link of /proc was entered."""
        target = os.readlink(name, dir_fd=self._here)
        if self._policy(dev) != VALUES:
            return target
        if name in (b"self", b"thread-self") and target.split(b"/")[0].isdigit():
            group, thread = self._ids(dev)
            return group if name == b"self" else b"%s/task/%s" % (group, thread)
        if name in (b"mounts", b"net"):
            return target
        fd = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=self._here)
        self._enter(fd)
        return None

    def _ids(self, dev: int) -> tuple[bytes, bytes]:
        """Process and thread id of the caller, as the /proc that is `dev` counts them."""
        own = self._reader.stat(kernel.AT_FDCWD, b"/proc").dev == dev
        group, thread = b"", b"%d" % self._tid
        with open("/proc/%d/status" % self._tid, "rb") as f:
            for line in f:
                word, _colon, rest = line.partition(b":")
                if word == (b"Tgid" if own else b"NStgid"):
                    group = rest.split()[-1]
                elif word == b"NSpid" and not own:
                    thread = rest.split()[-1]
        return group, thread
