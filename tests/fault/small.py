# SPDX-License-Identifier: GPL-3.0-or-later
"""A host small enough to die a thousand times: a disk of its own in memory, and boots that take milliseconds.

    host = SmallHost(folder, "ext4")
    said = host.boot(function, seconds=30)         function(say) runs as a child of the boot's first process; say(event="...") comes back
    said = host.boot(function, again=True)         in the boot before, whose processes were all killed
    host.cycle()                                   unmount and mount: after a power cut

All modules of the engine are loaded before the first boot, so a boot forks and starts no interpreter. Each boot has its own mount,
process, time and host name namespaces, and a root that holds nothing but the disk, /usr and /etc. There is no systemd, and no cgroup.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

MEGABYTES = {"ext4": 96, "xfs": 320, "btrfs": 160}
#: a disk made by `mke2fs -d`, as many images of machines are: it has a tree on it, and generation 0 on every inode
GROWN = "ext4-d"
_NEWNS, _NEWUTS, _NEWPID, _NEWTIME = 0x20000, 0x4000000, 0x20000000, 0x80
_BIND, _REC, _PRIVATE, _RDONLY = 4096, 16384, 1 << 18, 1
_libc = ctypes.CDLL(None, use_errno=True)

Say = Callable[..., None]


class Said(NamedTuple):
    """What a boot said, and whether it ended by itself in its time."""

    events: list[dict[str, Any]]
    hung: bool
    errors: str

    def get(self, event: str) -> dict[str, Any] | None:
        return next((found for found in reversed(self.events) if found["event"] == event), None)


def enter_namespace() -> None:
    """Mounts made from here on are this process's and its children's own, and end with them."""
    _check(_libc.unshare(_NEWNS), "unshare: root is needed")
    _mount(b"none", b"/", b"", _REC | _PRIVATE)


class SmallHost:
    """The caller has one thread, and is in a mount namespace of its own."""

    def __init__(
        self,
        folder: Path,
        fs: str,
        *,
        options: tuple[str, ...] = (),
        with_second: bool = False,
        second_fs: str = "",
        with_third: bool = False,
    ) -> None:
        """`options`: of mkfs. `second` is where each boot mounts the second disk, if there is one; empty: nowhere. `second_fs`: its file
        system, if it is not the first one's; tmpfs: in memory, empty at each boot. The third one is like
        the second, and mounted by nobody."""
        self.fs, self.root, self.second = fs, folder / "root", ""
        self.second_fs = second_fs or fs
        self._folder = folder
        self.root.mkdir(parents=True)
        memory = folder / "memory"
        memory.mkdir()
        _mount(b"tmpfs", os.fsencode(memory), b"tmpfs", 0)
        self._image = memory / "disk"
        self._loop, self._held = self._disk(self._image, options)
        self._image2 = memory / "disk2"
        self._loop2, self._held2 = self._disk(self._image2, options) if with_second and second_fs != "tmpfs" else ("", -1)
        self._image3 = memory / "disk3"
        self._loop3, self._held3 = self._disk(self._image3, options) if with_third and second_fs != "tmpfs" else ("", -1)
        self._errors = memory / "errors"
        self._boot_id, self._offset = folder / "boot_id", 0
        self._mount_disk()
        for name in ("usr", "etc", "proc", "sys", "dev", "run", "tmp", "srv", "var/lib"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path(f"/{name}").is_symlink():
                (self.root / name).symlink_to(os.readlink(f"/{name}"))
        os.sync()

    def _disk(self, image: Path, options: tuple[str, ...]) -> tuple[str, int]:
        with open(image, "wb") as f:
            f.truncate(MEGABYTES[self.fs] << 20)
        subprocess.run([f"mkfs.{self.fs}", "-q", *options, str(image)], check=True, stdout=subprocess.DEVNULL)
        return _plug_in(image)

    def grow_disks(self, folder: Path) -> None:
        """Second and third by `mke2fs -d`, with the tree of a folder: inodes of one number and generation."""
        os.close(self._held2)
        os.close(self._held3)
        for image in (self._image2, self._image3):
            os.truncate(image, 0)
            os.truncate(image, MEGABYTES["ext4"] << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(folder), str(image)], check=True, stdout=subprocess.DEVNULL)
        self._loop2, self._held2 = _plug_in(self._image2)
        self._loop3, self._held3 = _plug_in(self._image3)

    def mount_second(self) -> None:
        """In the boot: where each boot mounts it."""
        self._mount_like_second(self._loop2, os.fsencode("/" + self.second))

    def mount_third(self) -> None:
        """In the boot: where each boot mounts the second."""
        self._mount_like_second(self._loop3, os.fsencode("/" + self.second))

    def _mount_like_second(self, loop: str, at: bytes) -> None:
        if self.second_fs == "tmpfs":
            _mount(b"none", at, b"tmpfs", 0, b"size=64m")
        else:
            _mount(loop.encode(), at, b"ext4" if self.second_fs == GROWN else self.second_fs.encode(), 0)

    def close(self) -> None:
        self._umount_disk()
        for held in (self._held, self._held2, self._held3):
            if held >= 0:
                os.close(held)

    def _mount_disk(self) -> None:
        options = b"noinit_itable" if self.fs == "ext4" else b""
        _mount(self._loop.encode(), os.fsencode(self.root), self.fs.encode(), 0, options)

    def _umount_disk(self) -> None:
        end = time.monotonic() + 60
        while _libc.umount2(os.fsencode(self.root), 0):
            self._wait(end)
        # It lives for a moment after its last mount and process, and whoever mounts it then gets that one, without power.
        while not self._is_free():
            self._wait(end)

    def _wait(self, end: float) -> None:
        if time.monotonic() > end:
            raise TimeoutError(f"{self.root} is still in use")
        time.sleep(0.002)

    def _is_free(self) -> bool:
        """Whether no file system has the device."""
        try:
            os.close(os.open(self._loop, os.O_RDONLY | os.O_EXCL))
        except OSError:
            return False
        return True

    def cycle(self) -> None:
        """All processes are dead. The file system may live a little longer than they."""
        self._umount_disk()
        self._plug_in_anew()
        end = time.monotonic() + 20
        while True:
            try:
                return self._mount_disk()
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.005)

    def _plug_in_anew(self) -> None:
        """The kernel's cache of a device lives for as long as it is open, and may show what never was on the disk."""
        os.close(self._held)
        self._loop, self._held = _plug_in(self._image)

    def keep(self) -> None:
        """Remember the disk as it is now, for `restore`."""
        self._umount_disk()
        subprocess.run(["cp", "--sparse=always", str(self._image), f"{self._image}.kept"], check=True)
        self._mount_disk()

    def restore(self) -> None:
        self._umount_disk()
        with open(self._image, "r+b", buffering=0) as disk, open(f"{self._image}.kept", "rb", buffering=0) as kept:
            _copy_blocks(kept.fileno(), disk.fileno())
        self._plug_in_anew()
        self._mount_disk()

    def boot(self, function: Callable[[Say], None], *, seconds: float = 30.0, again: bool = False) -> Said:
        if not again:
            self._boot_id.write_text(f"{uuid.uuid4()}\n")
            self._offset = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        read, write = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _guarded(lambda: self._outside(function, read, write))
        os.close(write)
        data, hung = _drain(read, time.monotonic() + seconds)
        if hung:
            os.kill(child, signal.SIGKILL)  # its child, the boot's first process, dies of it, and all the others of that
            more, _still = _drain(read, time.monotonic() + 10)
            data += more
        os.close(read)
        os.waitpid(child, 0)
        events = [json.loads(line) for line in data.split(b"\n") if line.endswith(b"}")]
        return Said(events, hung, self._errors.read_text(errors="replace")[-4000:])

    def _outside(self, function: Callable[[Say], None], read: int, write: int) -> int:
        os.close(read)
        errors = os.open(self._errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(errors, 2)
        _check(_libc.unshare(_NEWNS | _NEWUTS | _NEWPID | _NEWTIME), "unshare")
        with open("/proc/self/timens_offsets", "w", encoding="ascii") as f:
            seconds, rest = divmod(-self._offset, 10**9)  # to the nanosecond: what happened before this boot happened before it
            f.write(f"monotonic {seconds} {rest}\nboottime {seconds} {rest}\n")
        first = os.fork()
        if first == 0:
            _guarded(lambda: self._first(function, write))
        os.close(write)
        os.waitpid(first, 0)
        return 0

    def _first(self, function: Callable[[Say], None], write: int) -> int:
        """The boot's first process: when it ends, all others do."""
        _libc.prctl(1, signal.SIGKILL)
        self._furnish()
        os.chroot(self.root)
        os.chdir("/")
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            _guarded(lambda: self._run(function, write))
        os.close(write)
        while True:
            pid, _status = os.wait()
            if pid == child:
                return 0

    @staticmethod
    def _run(function: Callable[[Say], None], write: int) -> int:
        def say(**event: Any) -> None:
            data = json.dumps(event).encode() + b"\n"
            while data:
                data = data[os.write(write, data) :]

        function(say)
        return 0

    def _furnish(self) -> None:
        def at(name: str) -> bytes:
            return os.fsencode(self.root / name)

        if self.second:
            (self.root / self.second).mkdir(parents=True, exist_ok=True)
            self._mount_like_second(self._loop2, at(self.second))
        for name in ("usr", "etc", "dev"):
            _mount(f"/{name}".encode(), at(name), b"", _BIND | _REC)
        _mount(b"proc", at("proc"), b"proc", 0)
        _mount(os.fsencode(self._boot_id), at("proc/sys/kernel/random/boot_id"), b"", _BIND)
        _mount(b"sysfs", at("sys"), b"sysfs", _RDONLY)
        for name in ("run", "tmp"):
            _mount(b"tmpfs", at(name), b"tmpfs", 0)


def _plug_in(image: Path) -> tuple[str, int]:
    """(loop device, a descriptor of it). It is given back when the last who has it open ends, however that is: a mount, or else that."""
    done = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    loop = done.stdout.strip()
    held = os.open(loop, os.O_RDONLY | os.O_CLOEXEC)
    subprocess.run(["losetup", "-d", loop], check=True)
    return loop, held


def _copy_blocks(source: int, target: int) -> None:
    """What differs of two disks. Most of a disk is hole in `source`."""
    at, size, block = 0, os.fstat(source).st_size, 1 << 18
    while at < size:
        data = os.pread(source, block, at)
        if os.pread(target, block, at) != data:
            os.pwrite(target, data, at)
        at += len(data)


def _drain(fd: int, end: float) -> tuple[bytes, bool]:
    """All until its end, or until that moment: then True."""
    data = b""
    while True:
        ready, _w, _x = select.select([fd], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return data, True
        piece = os.read(fd, 1 << 16)
        if not piece:
            return data, False
        data += piece


def _guarded(body: Callable[[], int]) -> None:
    """The end of a forked process: nothing of its parent's is to run in it."""
    code = 99
    try:
        code = body()
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: bytes, target: bytes, fstype: bytes, flags: int, options: bytes = b"") -> None:
    _check(_libc.mount(source, target, fstype or None, flags, options or None), f"mount {target!r}")
