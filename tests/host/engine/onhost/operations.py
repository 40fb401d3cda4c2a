# SPDX-License-Identifier: GPL-3.0-or-later
"""Random programs of file operations: made from a seed, run in the current directory. An operation that fails is no error: real
programs' fail too.

An operation is [kind, numbers...]; a number picks the path, size or value at run time, so a program means something whatever
came before it,
and still does when operations are taken out of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import random
import shutil
import stat
import struct

from calls import AT, EXCHANGE, NOREPLACE, WHITEOUT, call, give_name

NAMES = ["a", "b", "c", "d"]
SIZES = [0, 1, 40, 1000, 1024, 1025, 4096, 4097, 20000, 300000]
MODES = [0o644, 0o600, 0o4755, 0o2755, 0o1777, 0o000]
OWNERS = [0, 1, 65534]
_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602
_LOCKS = 0x30
# user.x, an ACL for user 1 (rw-), the same as a default ACL, cap_net_raw+ep
ACL = struct.pack("<IHHIHHIHHIHHIHHI", 2, 1, 6, 0xFFFFFFFF, 2, 6, 1, 4, 4, 0xFFFFFFFF, 16, 6, 0xFFFFFFFF, 32, 4, 0xFFFFFFFF)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
XATTRS = [
    ("user.x", b"one"),
    ("user.y", b"two" * 30),
    ("system.posix_acl_access", ACL),
    ("system.posix_acl_default", ACL),
    ("security.capability", CAPABILITY),
]


def at_once(path: str, flags: int) -> int:
    """Opens without waiting: what was a file may have become a fifo, by another process."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def copy(source: str, target: str) -> None:
    with open(source, "rb", opener=at_once) as read, open(target, "wb", opener=at_once) as write:
        shutil.copyfileobj(read, write)
    shutil.copystat(source, target)


class Program:
    """Runs operations."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def run(self, operations: list[list[object]]) -> int:
        """How many of them succeeded."""
        good = 0
        for kind, *numbers in operations:
            try:
                if os.environ.get("EXPLAIN"):
                    print(kind, numbers, "|", " ".join(self._all()), flush=True)
                getattr(self, kind)(*numbers)
                good += 1
            except (OSError, ValueError, shutil.Error):
                pass
        return good

    # -- which path ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _all() -> list[str]:
        found = []
        for folder, folders, files in os.walk("."):
            folders.sort()
            found += [os.path.join(folder, name) for name in sorted(folders + files)]
        return found

    def _old(self, n: int) -> str:
        found = self._all() or ["./a"]
        return found[n % len(found)]

    def _file(self, n: int) -> str:
        found = [path for path in self._all() if stat.S_ISREG(os.lstat(path).st_mode)]
        if not found:
            raise FileNotFoundError
        return found[n % len(found)]

    def _new(self, n: int) -> str:
        """A name that may be there, in a folder that is."""
        folders = ["."] + [path for path in self._all() if stat.S_ISDIR(os.lstat(path).st_mode)]
        return os.path.join(folders[n // 7 % len(folders)], NAMES[n % len(NAMES)])

    @staticmethod
    def _text(n: int) -> bytes:
        return random.Random(n).randbytes(64) * (SIZES[n % len(SIZES)] // 64 + 1)

    def _data(self, n: int) -> bytes:
        return self._text(n)[: SIZES[n % len(SIZES)]]

    # -- until nothing fits any more (asked for by name, never drawn) -------------------------------------------------------

    def fill_file(self, where: int) -> None:
        """One file takes all space that there is: new in an old folder, in a new folder, or one that was there."""
        if where == 1:
            os.makedirs("filled/deep", exist_ok=True)
        path = ("filler", "filled/deep/filler", "big")[where]
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(fd, bytes(size))
        finally:
            os.close(fd)

    def fill_names(self, where: int) -> None:
        """Many small files take all inodes, or all space."""
        folder = ("few", "many/deep")[where]
        os.makedirs(folder, exist_ok=True)
        for number in range(4000):
            fd = os.open(f"{folder}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.write(fd, bytes(100))
            finally:
                os.close(fd)

    def cut_big(self, size: int, which: int) -> None:
        """Space that the undo will need again."""
        os.truncate(("big", "big2", "big3")[which], size)

    def spread(self, quarter: int) -> None:
        """A quarter of the files each is made, written in place, removed and given another mode."""
        for number in range(quarter):
            with open(f"{number % 20}/new{number}", "wb") as f:
                f.write(b"new" * 700)
            with open(f"{number % 20}/{number}", "r+b") as f:
                f.write(b"changed")
            os.unlink(f"{(number + quarter) % 20}/{number + quarter}")
            os.chmod(f"{(number + 2 * quarter) % 20}/{number + 2 * quarter}", 0o600)

    # -- operations ------------------------------------------------------------------------------------------------------

    def create(self, n: int, size: int) -> None:
        fd = os.open(self._new(n), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)  # it may be a fifo
        try:
            os.write(fd, self._data(size))
        finally:
            os.close(fd)

    def write(self, n: int, at: int, size: int) -> None:
        with open(self._file(n), "r+b") as f:
            f.seek(at % 5000)
            f.write(self._data(size))

    def append(self, n: int, size: int) -> None:
        with open(self._file(n), "ab", opener=at_once) as f:
            f.write(self._data(size))

    def mapped(self, n: int) -> None:
        """In a child: where another process cuts the file meanwhile, it ends by SIGBUS."""
        with open(self._file(n), "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
            child = os.fork()
            if child == 0:
                m[len(m) // 2] = 88
                os._exit(0)
            os.waitpid(child, 0)

    def cut(self, n: int, size: int) -> None:
        os.truncate(self._file(n), SIZES[size % len(SIZES)])

    def hole(self, n: int) -> None:
        with open(self._file(n), "r+b") as f:
            f.truncate(4 << 20)
            f.seek(2 << 20)
            f.write(b"island")

    def replace(self, n: int, size: int) -> None:
        """As sed -i does."""
        path = self._file(n)
        with open(path + ".new", "wb", opener=at_once) as f:
            f.write(self._data(size))
        os.chmod(path + ".new", stat.S_IMODE(os.stat(path).st_mode))
        os.rename(path + ".new", path)

    def nameless(self, n: int, size: int) -> None:
        path = self._new(n)
        fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR, 0o640)
        try:
            os.write(fd, self._data(size))
            give_name(fd, path)
        finally:
            os.close(fd)

    def hold(self, n: int) -> None:
        self._held.append(os.open(self._file(n), os.O_RDWR))

    def write_held(self, n: int, size: int) -> None:
        if self._held:
            os.pwrite(self._held[n % len(self._held)], self._data(size), n % 3000)

    def change_held(self, n: int, mode: int) -> None:
        if self._held:
            os.fchmod(self._held[n % len(self._held)], MODES[mode % len(MODES)])

    def unlink(self, n: int) -> None:
        os.unlink(self._old(n))

    def rmdir(self, n: int) -> None:
        os.rmdir(self._old(n))

    def rmtree(self, n: int) -> None:
        path = self._old(n)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def mkdir(self, n: int) -> None:
        os.mkdir(self._new(n))

    def copytree(self, n: int, m: int) -> None:
        source, target = self._old(n), self._new(m)
        if source.count("/") < 3 and len(self._all()) < 60 and not target.startswith(source + "/"):
            shutil.copytree(
                source,
                target,
                symlinks=True,
                ignore=lambda folder, names: set(names[3 if folder.count("/") < 8 else 0 :]) | ({"d"} if "fifo" in names else set()),
                copy_function=copy,
            )

    def symlink(self, n: int, m: int) -> None:
        os.symlink(self._old(n), self._new(m))

    def link(self, n: int, m: int) -> None:
        os.link(self._old(n), self._new(m), follow_symlinks=False)

    def fifo(self, n: int) -> None:
        os.mkfifo(self._new(n))

    def device(self, n: int) -> None:
        os.mknod(self._new(n), 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # null: whoever copies it reads nothing

    def rename(self, n: int, m: int) -> None:
        os.rename(self._old(n), self._new(m))

    def rename_over(self, n: int, m: int) -> None:
        os.rename(self._old(n), self._old(m))

    def swap(self, n: int, m: int) -> None:
        call("renameat2", AT, self._old(n).encode(), AT, self._old(m).encode(), EXCHANGE)

    def rename_new(self, n: int, m: int) -> None:
        call("renameat2", AT, self._old(n).encode(), AT, self._new(m).encode(), NOREPLACE)

    def move_in(self, n: int, m: int, how: int) -> None:
        """An old file goes into a new directory that something was made in by its absolute path, and is changed there by that."""
        source, folder = self._file(n), os.path.abspath(self._new(m))
        os.mkdir(folder)
        with open(folder + "/own", "x", opener=at_once) as f:
            f.write("new")
        inside = folder + "/" + NAMES[how % len(NAMES)]
        if how & 4:
            os.rename(source, inside)
        else:
            call("renameat2", AT, source.encode(), AT, (folder + "/own").encode(), EXCHANGE)
            inside = folder + "/own"
        change = how // 8 % 5
        if change == 0:
            with open(inside, "wb", opener=at_once) as f:
                f.write(self._data(how))
        elif change == 1:
            os.unlink(inside)
        elif change == 2:
            os.chmod(inside, MODES[how % len(MODES)])
        elif change == 3:
            with open(folder + "/other", "wb", opener=at_once) as f:
                f.write(self._data(how))
            os.rename(folder + "/other", inside)
        else:
            os.rename(inside, folder + "/moved")

    def whiteout(self, n: int, m: int) -> None:
        call("renameat2", AT, self._old(n).encode(), AT, self._new(m).encode(), WHITEOUT)

    def chmod(self, n: int, mode: int) -> None:
        path = self._old(n)
        if not os.path.islink(path):
            os.chmod(path, MODES[mode % len(MODES)])

    def chown(self, n: int, owner: int) -> None:
        os.lchown(self._old(n), OWNERS[owner % 3], OWNERS[owner // 3 % 3])

    def utime(self, n: int, when: int) -> None:
        os.utime(self._old(n), ns=(when, when * 1000003), follow_symlinks=False)

    def setxattr(self, n: int, which: int) -> None:
        name, value = XATTRS[which % len(XATTRS)]
        os.setxattr(self._old(n), name, value, follow_symlinks=False)

    def removexattr(self, n: int, which: int) -> None:
        os.removexattr(self._old(n), XATTRS[which % len(XATTRS)][0], follow_symlinks=False)

    def lock(self, n: int, which: int) -> None:
        """chattr +i, +a, or none of them."""
        path = self._old(n)
        if stat.S_IFMT(os.lstat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            raise OSError(errno.EINVAL, "not to be locked")
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            (flags,) = struct.unpack_from("<I", fcntl.ioctl(fd, _GETFLAGS, bytes(8)))
            fcntl.ioctl(fd, _SETFLAGS, struct.pack("<Q", (flags & ~_LOCKS) | (0, 0x10, 0x20, 0)[which % 4]))
        finally:
            os.close(fd)


# How often each: (kind, weight, how many numbers)
KINDS = (
    ("create", 10, 2), ("write", 8, 3), ("append", 4, 2), ("mapped", 2, 1), ("cut", 4, 2), ("hole", 1, 1), ("replace", 5, 2),
    ("nameless", 2, 2),
    ("hold", 2, 1), ("write_held", 3, 2), ("change_held", 1, 2), ("unlink", 7, 1), ("rmdir", 4, 1), ("rmtree", 5, 1), ("mkdir", 9, 1),
    ("copytree", 2, 2), ("symlink", 5, 2), ("link", 7, 2), ("fifo", 2, 1), ("device", 1, 1), ("rename", 10, 2),
    ("rename_over", 8, 2), ("swap", 5, 2),
    ("rename_new", 3, 2), ("whiteout", 1, 2), ("chmod", 5, 2), ("chown", 4, 2), ("utime", 3, 2), ("setxattr", 5, 2),
    ("removexattr", 2, 2), ("lock", 2, 2), ("move_in", 2, 3),
)  # fmt: skip


def program(chosen: random.Random, length: int, *, locks: bool = True) -> list[list[object]]:
    kinds = [kind for kind in KINDS if locks or kind[0] != "lock"]
    picked = chosen.choices(kinds, weights=[weight for _kind, weight, _count in kinds], k=length)
    return [[kind, *(chosen.randrange(1 << 20) for _number in range(count))] for kind, _weight, count in picked]
