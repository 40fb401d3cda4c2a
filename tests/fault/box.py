# SPDX-License-Identifier: GPL-3.0-or-later
"""A small host on a file system of its own, which can lose its power: the engine runs in it as on any host, without systemd.

    with Box(folder, "ext4") as box:
        box.boot(["python3", "-I", "/opt/inbox/workload.py"])   ->  a process; what it prints comes through a pipe
        box.cut()                                               what was not on the disk is gone, and all processes
        box.boot([...])                                         another boot of the same disk

A power cut is FS_IOC_SHUTDOWN without a flush of the journal, then SIGKILL to all, unmount, mount: what the file system had not
submitted to its device is lost. The device is a loop file, which loses and reorders nothing of what it was given, so a missing barrier is
not found.
Everything happens in a mount namespace of the caller (enter_namespace) and a process namespace for each boot.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
INBOX = Path(__file__).resolve().parent / "inbox"
ONHOST = TOP / "tests" / "host" / "engine" / "onhost"
_SHUTDOWN, _NOLOGFLUSH = 0x8004587D, 2
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 1 << 18
MEGABYTES = {"ext4": 96, "xfs": 320}

_BOOT = """
set -e
R=$1; shift
for d in usr etc; do mount --rbind -o ro /$d "$R/$d"; done
mount -t tmpfs none "$R/usr/local"; mkdir "$R/usr/local/lib" "$R/usr/local/sbin"
mount -t tmpfs none "$R/etc/systemd"; mkdir "$R/etc/systemd/system"
mount -t proc proc "$R/proc"; mount --rbind /sys "$R/sys"; mount --rbind /dev "$R/dev"
mount -t tmpfs none "$R/run"; mount -t tmpfs none "$R/tmp"
mount --bind "$R/../boot_id" "$R/proc/sys/kernel/random/boot_id"
mount -t tmpfs none "$R/opt"; mkdir "$R/opt/inbox"
cp -r "$R/../inbox/." "$R/opt/inbox/"
set -- /usr/local/lib/acid /usr/local/sbin/acidctl "$@"
chroot "$R" python3 -IS /opt/inbox/installer.py /opt/inbox/engine.tgz "$(cat "$R/../inbox/hash")" "$1" "$2" >&2
shift 2
exec chroot "$R" "$@"
"""


def enter_namespace() -> None:
    """Mounts made from here on are this process's and its children's own, and end with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "a mount namespace of its own needs root")


def engine_archive() -> tuple[bytes, str]:
    sys.path.insert(0, str(TOP / ".build" / "collections"))
    from ansible_collections.acid.host.plugins.plugin_utils import delivery

    engine = delivery.engine()
    return engine.archive, engine.hash


class Box:
    """`folder` is empty and on a disk. The caller is in a namespace of its own."""

    def __init__(self, folder: Path, fs: str) -> None:
        self.folder, self.fs = folder, fs
        self.root, self._image = folder / "root", folder / f"disk.{fs}"
        self._pristine = folder / f"pristine.{fs}"
        self._process: subprocess.Popen[str] | None = None
        self._mounted = False  # a file system without power does not let itself be asked
        self._prepare()

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()
        self._unmount()

    def _prepare(self) -> None:
        self.root.mkdir(parents=True)
        inbox = self.folder / "inbox"
        inbox.mkdir()
        for source in (*INBOX.glob("*.py"), *ONHOST.glob("*.py")):
            shutil.copy(source, inbox)
        archive, hash_ = engine_archive()
        (inbox / "engine.tgz").write_bytes(archive)
        (inbox / "hash").write_text(hash_)
        shutil.copy(TOP / "plugins" / "plugin_utils" / "installer.py", inbox)
        with open(self._pristine, "wb") as f:
            f.truncate(MEGABYTES[self.fs] << 20)
        subprocess.run([f"mkfs.{self.fs}", "-q", str(self._pristine)], check=True, stdout=subprocess.DEVNULL)
        shutil.copy(self._pristine, self._image)
        self._mount()
        for name in ("usr", "usr/local", "etc", "proc", "sys", "dev", "run", "tmp", "opt", "srv", "var/lib"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path(f"/{name}").is_symlink():
                (self.root / name).symlink_to(os.readlink(f"/{name}"))
        self._unmount()
        subprocess.run(["cp", "--sparse=always", str(self._image), str(self._pristine)], check=True)

    def fresh(self) -> None:
        """An empty disk again."""
        self.end()
        self._unmount()
        subprocess.run(["cp", "--sparse=always", str(self._pristine), str(self._image)], check=True)

    def _mount(self) -> None:
        options = "loop,noinit_itable" if self.fs == "ext4" else "loop"
        subprocess.run(["mount", "-o", options, str(self._image), str(self.root)], check=True)
        self._mounted = True

    def _unmount(self) -> None:
        if self._mounted:
            subprocess.run(["umount", str(self.root)], check=True)
            self._mounted = False
        # The file system lives on as long as a process of the box does.
        end = time.monotonic() + 20
        while subprocess.run(["losetup", "-j", str(self._image)], capture_output=True, check=True).stdout:
            if time.monotonic() > end:
                raise TimeoutError(f"{self._image} is still in use")
            time.sleep(0.01)

    def boot(self, argv: list[str]) -> subprocess.Popen[str]:
        """Start the command as the box's first process: when it ends, all others in the box do."""
        if not self._mounted:
            self._mount()
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        uptime = -int(time.clock_gettime(time.CLOCK_BOOTTIME))
        namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--time", f"--boottime={uptime}", f"--monotonic={uptime}"]
        command = ["unshare", *namespaces, "sh", "-c", _BOOT, "box", str(self.root), *argv]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")
        return self._process

    def end(self) -> tuple[str, str]:
        """SIGKILL to all in the box. What its process had printed and nobody had read."""
        if self._process is None:
            return "", ""
        self._process.kill()
        said = self._process.communicate()
        self._process = None
        return said

    def cut(self) -> tuple[str, str]:
        """The power goes: nothing more reaches the disk from here on. What the box's process had printed, as `end`."""
        fd = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, _NOLOGFLUSH.to_bytes(4, "little"))
        finally:
            os.close(fd)
        said = self.end()
        self._unmount()
        return said
