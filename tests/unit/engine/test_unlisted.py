# SPDX-License-Identifier: GPL-3.0-or-later
"""Device numbers that the host's mount table does not show: a call of each kind on each, and what becomes of it (docs/adr/0022).

What a call changes is exact after the undo, or it was refused, or named irreversible, which `irreversible: deny` refuses.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from engine.errors import AcidError, Denied
from engine.kernel import AT_EMPTY_PATH, Reader
from engine.model import IRREVERSIBLE
from engine.trace.calls import CALLS, IOCTLS

_spec = importlib.util.spec_from_file_location("traced_calls", Path(__file__).with_name("traced_calls.py"))
assert _spec is not None
assert _spec.loader is not None
traced_calls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traced_calls)
Traced, look = traced_calls.Traced, traced_calls.look

EXACT, REFUSED, NAMED = "exact", "refused", "named"
CWD, REMOVEDIR, GETFLAGS, SETFLAGS, NODUMP = -100, 0x200, 0x80086601, 0x40086602, 0x40
CLONE_NEWNS, CLONE_FS = 0x00020000, 0x00000200
LARGE = b"precious\n" * 1000

Act = Callable[[Traced, int], object]


def opens(flags: int) -> Act:
    """Open the file, and write where that succeeds."""

    def act(step: Traced, at: int) -> None:
        fd = step.call("openat", at, "a", flags, 0o644)
        os.write(fd, b"changed")
        os.close(fd)

    return act


def opens2(step: Traced, at: int) -> None:
    how = struct.pack("<QQQ", os.O_WRONLY | os.O_TRUNC, 0, 0)
    os.close(step.call("openat2", at, "a", how, len(how)))


def by_handle(step: Traced, at: int) -> None:
    handle = Reader().handle(at, b"a")
    packed = struct.pack("<I", len(handle) - 4) + handle
    os.close(step.call("open_by_handle_at", at, packed, os.O_WRONLY | os.O_TRUNC))


def on_file(name: str, *arguments: int | bytes | str, flags: int = os.O_RDONLY) -> Act:
    """A call on a descriptor of the file, which may have been passed on by anybody."""

    def act(step: Traced, at: int) -> None:
        fd = os.open("a", flags, dir_fd=at)
        try:
            step.call(name, fd, *arguments)
        finally:
            os.close(fd)

    return act


def magic(name: str, *arguments: int | bytes | str, call: str = "") -> Act:
    """By the path of a descriptor."""

    def act(step: Traced, at: int) -> None:
        fd = os.open("a", os.O_RDONLY, dir_fd=at)
        try:
            step.call(name, CWD, f"/proc/self/fd/{fd}", *arguments)
        finally:
            os.close(fd)

    return act


def binds(step: Traced, at: int) -> None:
    made = socket.socket(socket.AF_UNIX)
    step.act(os.fchdir, at)
    try:
        address = struct.pack("<H", 1) + b"socket\0"
        step.call("bind", made.fileno(), address, len(address))
    finally:
        step.act(os.chdir, "/")
        made.close()


def truncates(step: Traced, at: int) -> None:
    fd = os.open("a", os.O_RDONLY, dir_fd=at)
    try:
        step.call("truncate", f"/proc/self/fd/{fd}", 5)
    finally:
        os.close(fd)


def file_setattr(step: Traced, at: int) -> None:
    step.call("file_setattr", at, "a", struct.pack("<QIIII", 0x80, 0, 0, 0, 0), 24, 0)  # FS_XFLAG_NODUMP


#: by name: the `does` of calls.py, and the call
ACTS: dict[str, tuple[str, Act]] = {
    "write": ("open", opens(os.O_WRONLY)),
    "write and truncate": ("open", opens(os.O_WRONLY | os.O_TRUNC)),
    "create": ("open", lambda step, at: os.close(step.call("openat", at, "new", os.O_WRONLY | os.O_CREAT, 0o644))),
    "write by the path of a descriptor": ("open", magic("openat", os.O_WRONLY | os.O_TRUNC)),
    "openat2": ("openat2", opens2),
    "open by handle": ("open_by_handle", by_handle),
    "truncate": ("truncate", truncates),
    "rename": ("rename", lambda step, at: step.call("renameat2", at, "a", at, "moved", 0)),
    "rename over": ("rename", lambda step, at: step.call("renameat2", at, "b", at, "a", 0)),
    "exchange": ("rename", lambda step, at: step.call("renameat2", at, "a", at, "sub", 2)),
    "link": ("link", lambda step, at: step.call("linkat", at, "a", at, "hard", 0)),
    "symlink": ("symlink", lambda step, at: step.call("symlinkat", "a", at, "soft")),
    "mkdir": ("create", lambda step, at: step.call("mkdirat", at, "made", 0o755)),
    "mknod": ("create", lambda step, at: step.call("mknodat", at, "fifo", 0o10644, 0)),
    "bind": ("bind", binds),
    "unlink": ("remove", lambda step, at: step.call("unlinkat", at, "a", 0)),
    "unlink a small one": ("remove", lambda step, at: step.call("unlinkat", at, "b", 0)),
    "rmdir": ("remove", lambda step, at: step.call("unlinkat", at, "sub", REMOVEDIR)),
    "chmod": ("mode", lambda step, at: step.call("fchmodat", at, "a", 0o600)),
    "chmod a directory": ("mode", lambda step, at: step.call("fchmodat", at, "sub", 0o700)),
    "chmod by the path of a descriptor": ("mode", magic("fchmodat", 0o600)),
    "fchmod": ("mode_fd", on_file("fchmod", 0o600)),
    "chown": ("owner", lambda step, at: step.call("fchownat", at, "a", 1, 1, 0)),
    "chown a symlink": ("owner", lambda step, at: step.call("fchownat", at, "soft link", 1, 1, 0x100)),
    "fchown": ("owner_fd", on_file("fchown", 1, 1)),
    "fchown by an empty path": ("owner", on_file("fchownat", "", 1, 1, AT_EMPTY_PATH)),
    "utimensat": ("basic", lambda step, at: step.call("utimensat", at, "a", struct.pack("<4q", 1, 1, 1, 1), 0)),
    "futimens": ("basic", on_file("utimensat", 0, struct.pack("<4q", 1, 1, 1, 1), 0)),
    "setxattr": ("xattr", magic("setxattrat", 0, "user.x", struct.pack("<QII", 0, 0, 0), 16)),
    "fsetxattr": ("xattr_fd", on_file("fsetxattr", "trusted.x", b"value", 5, 0)),
    "file_setattr": ("flags", file_setattr),
    "chattr": ("ioctl", on_file("ioctl", SETFLAGS, struct.pack("<Q", NODUMP))),
}


@dataclass
class Device:
    """`at`: a descriptor of the directory there; `folder`: the way to look at it; `expected` of each call that changes anything."""

    folder: Path
    at: int
    expected: frozenset[str]
    caller: ThreadPoolExecutor | None = None
    ends: list[Callable[[], object]] = field(default_factory=list)
    later: Callable[[], int] | None = None


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def fill(folder: Path) -> None:
    (folder / "a").write_bytes(LARGE)
    (folder / "b").write_text("small")
    (folder / "sub").mkdir()
    (folder / "soft link").symlink_to("a")


def disk(sandbox: Path, kind: str, name: str) -> Path:
    image, place = sandbox / f"{name}.img", sandbox / name
    with open(image, "wb") as f:
        f.truncate((128 if kind == "btrfs" else 16) << 20)
    run(f"mkfs.{kind}", "-q", image)
    place.mkdir()
    run("mount", "-o", "loop", image, place)
    return place


def nested(sandbox: Path) -> Device:
    """A subvolume that is not mounted by itself."""
    place = disk(sandbox, "btrfs", "btrfs")
    run("btrfs", "subvolume", "create", place / "sv")
    fill(place / "sv")
    return Device(place / "sv", os.open(place / "sv", os.O_RDONLY), frozenset((EXACT,)), ends=[lambda: run("umount", "-l", place)])


def deeper(sandbox: Path) -> Device:
    """One in another one, reached by a directory within, which is renamed meanwhile."""
    place = disk(sandbox, "btrfs", "btrfs")
    run("btrfs", "subvolume", "create", place / "sv")
    run("btrfs", "subvolume", "create", place / "sv" / "inner")
    (place / "sv" / "inner" / "d").mkdir()
    fill(place / "sv" / "inner" / "d")
    (place / "sv").rename(place / "renamed")
    folder = place / "renamed" / "inner" / "d"
    return Device(folder, os.open(folder, os.O_RDONLY), frozenset((EXACT,)), ends=[lambda: run("umount", "-l", place)])


def overlay(sandbox: Path) -> Device:
    """Lower and upper on two file systems: files show numbers that are in no mount table."""
    lower, upper, place = disk(sandbox, "ext4", "lower"), sandbox / "upper", sandbox / "overlay"
    upper.mkdir()
    run("mount", "-t", "tmpfs", "none", upper)
    for folder in (upper / "u", upper / "w", place):
        folder.mkdir()
    fill(lower)
    run("mount", "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper}/u,workdir={upper}/w,xino=off", "none", place)
    assert (place / "a").stat().st_dev != place.stat().st_dev, "the files have the number of the mount, so this shows nothing"
    return Device(place, os.open(place, os.O_RDONLY), frozenset((REFUSED,)), ends=[lambda: run("umount", "-l", place, upper, lower)])


def gone(kind: str) -> Callable[[Path], Device]:
    """Mounted nowhere any more, and open."""

    def make(sandbox: Path) -> Device:
        if kind == "tmpfs":
            place = sandbox / "place"
            place.mkdir()
            run("mount", "-t", "tmpfs", "none", place)
        else:
            place = disk(sandbox, kind, "place")
        fill(place)
        at = os.open(place, os.O_RDONLY)
        run("umount", "-l", place)
        return Device(Path(f"/proc/self/fd/{at}"), at, frozenset((NAMED, REFUSED)))

    return make


def own(kind: str) -> Callable[[Path], Device]:
    """Mounted by the step in a namespace of its own."""

    def make(sandbox: Path) -> Device:
        caller = ThreadPoolExecutor(1)
        place = sandbox / "place"
        place.mkdir()
        if kind == "ext4":
            disk(sandbox, "ext4", "disk")
            run("umount", sandbox / "disk")
        libc = ctypes.CDLL(None, use_errno=True)

        def enter() -> int:
            assert libc.unshare(CLONE_NEWNS | CLONE_FS) == 0
            assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0  # private
            return 0

        def mount() -> int:
            if kind.startswith("tmpfs"):
                assert libc.mount(b"none", bytes(place), b"tmpfs", 0, b"") == 0
            elif kind == "ext4":
                assert libc.mount(bytes(loop), bytes(place), b"ext4", 0, b"") == 0
            else:
                options = f"lowerdir={sandbox}/lower,upperdir={sandbox}/upper/u,workdir={sandbox}/upper/w".encode()
                assert libc.mount(b"none", bytes(place), b"overlay", 0, options) == 0, os.strerror(ctypes.get_errno())
            fill_here(place)
            return os.open(place, os.O_RDONLY)

        def fill_here(folder: Path) -> None:
            if kind != "overlay":
                fill(folder)

        loop = Path("/")
        ends: list[Callable[[], object]] = []
        if kind == "ext4":
            loop = Path(subprocess.check_output(["losetup", "-f", "--show", str(sandbox / "disk.img")], text=True).strip())
            ends.append(lambda: run("losetup", "-d", loop))
        if kind == "overlay":
            (sandbox / "lower").mkdir()
            (sandbox / "upper").mkdir()
            run("mount", "-t", "tmpfs", "none", sandbox / "upper")
            (sandbox / "upper" / "u").mkdir()
            (sandbox / "upper" / "w").mkdir()
            fill(sandbox / "lower")
            ends.append(lambda: run("umount", "-l", sandbox / "upper"))
        caller.submit(enter).result()
        ends.insert(0, caller.shutdown)
        if kind == "tmpfs, later":
            return Device(place, -1, frozenset(), caller, ends, mount)
        at = caller.submit(mount).result()
        return Device(Path(f"/proc/self/fd/{at}"), at, frozenset((NAMED, REFUSED)), caller, ends)

    return make


DEVICES: dict[str, Callable[[Path], Device]] = {
    "a nested subvolume": nested,
    "a subvolume in a subvolume": deeper,
    "an overlay of two file systems": overlay,
    "an ext4 that is mounted nowhere": gone("ext4"),
    "a tmpfs that is mounted nowhere": gone("tmpfs"),
    "an ext4 in a namespace of its own": own("ext4"),
    "an older tmpfs in a namespace of its own": own("tmpfs"),
    "an overlay in a namespace of its own": own("overlay"),
}


@pytest.fixture
def device(sandbox: Path, request: pytest.FixtureRequest) -> Iterator[Device]:
    made = DEVICES[request.param](sandbox)
    try:
        yield made
    finally:
        os.close(made.at)
        for end in made.ends:
            end()


def flags_of(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return int(struct.unpack("<I", fcntl.ioctl(fd, GETFLAGS, bytes(4)))[0])
    except OSError:  # an overlay's lower file, in older kernels
        return 0
    finally:
        os.close(fd)


def seen(folder: Path) -> object:
    """With what `look` does not see."""
    more = {}
    for path in sorted(path for path in folder.iterdir() if path.name != ".acid-store"):
        pairs = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}
        more[path.name] = pairs, flags_of(path) if path.is_file() and not path.is_symlink() else 0
    return look(folder), more


def again(folder: Path) -> None:
    """As it was filled."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    fill(folder)


def run_act(step: Traced, device: Device, name: str) -> tuple[str, bool]:
    """(what became of it, whether anything has changed)."""
    before = seen(device.folder)
    try:
        ACTS[name][1](step, device.at)
    except Denied:
        return NAMED, seen(device.folder) != before
    except AcidError:
        return REFUSED, seen(device.folder) != before
    except OSError:  # of the call itself, too: a handle on an overlay, a flag on tmpfs
        return EXACT, seen(device.folder) != before
    named = any(observed.kind == IRREVERSIBLE for observed in step.observed)
    return NAMED if named else EXACT, seen(device.folder) != before


def test_each_kind_of_call_is_made() -> None:
    """What is not here changes no inode and no name."""
    others = {"mounts", "leaves_root", "unshare", "clone", "clone3", "connect", "socketcall", "probed", "quota", "irreversible"}
    others |= {"mq_open", "adjtime", "bpf", "sysv", "refuse"}
    assert {call.does for call in CALLS} - others == {does for does, _act in ACTS.values()}
    assert IOCTLS[SETFLAGS] == "flags_fd"


@pytest.mark.parametrize("deny", [False, True], ids=["warn", "deny"])
@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_no_image_no_change(sandbox: Path, device: Device, *, deny: bool) -> None:
    wrong, changed = [], set()
    for n, name in enumerate(ACTS):
        box = sandbox / str(n)
        box.mkdir()
        before = seen(device.folder)
        step = Traced(box, device.folder, caller=device.caller, deny=deny)
        found, has_changed = run_act(step, device, name)
        if has_changed:
            changed.add(name)
        if (found not in device.expected and (has_changed or found != EXACT)) or (found == REFUSED and has_changed):
            wrong.append(f"{name}: {found}, {step.observed}")
        if deny and found == NAMED and has_changed:
            wrong.append(f"{name}: named, and yet it ran")
        differs = step.undo()
        if found != NAMED and (differs or seen(device.folder) != before):
            wrong.append(f"{name}: not undone: {differs}")
        elif found == NAMED and has_changed:
            again(device.folder)
    assert wrong == []
    if EXACT in device.expected:
        assert changed >= set(ACTS) - {"file_setattr"}, "these have changed nothing, so they show nothing"  # Linux 6.17


def test_a_new_file_system_in_memory_goes_with_its_namespace(sandbox: Path) -> None:
    """One that the step itself has mounted there: a package manager's sandbox, a container's /tmp."""
    made = own("tmpfs, later")(sandbox)
    try:
        step = Traced(sandbox, sandbox / "elsewhere", caller=made.caller, deny=True)
        at = step.act(made.later)
        for _does, act in ACTS.values():
            again(Path(f"/proc/self/fd/{at}"))
            with contextlib.suppress(OSError):
                act(step, at)
        assert step.observed == []
        os.close(at)
    finally:
        for end in made.ends:
            end()


def kernels_own() -> dict[str, Callable[[], int]]:
    return {
        "memfd": lambda: os.memfd_create("one"),
        "pipe": lambda: os.pipe()[1],
        "socket": lambda: socket.socket(socket.AF_UNIX).detach(),
        "pidfd": lambda: os.pidfd_open(os.getpid()),
        "eventfd": eventfd,
    }


def eventfd() -> int:
    fd: int = ctypes.CDLL(None).eventfd(0, 0)
    return fd


@pytest.mark.parametrize("kind", kernels_own())
def test_what_lives_in_a_descriptor_alone_needs_no_image(sandbox: Path, kind: str) -> None:
    step, fd = Traced(sandbox, sandbox / "elsewhere", deny=True), kernels_own()[kind]()
    try:
        for name, arguments in (("fchmod", (0o600,)), ("fchown", (0, 0)), ("ioctl", (SETFLAGS, bytes(8)))):
            with contextlib.suppress(OSError):
                step.call(name, fd, *arguments)
        with contextlib.suppress(OSError):
            step.call("fchmodat", CWD, f"/proc/self/fd/{fd}", 0o600)
        if kind == "memfd":
            os.close(step.call("openat", CWD, f"/proc/self/fd/{fd}", os.O_WRONLY))
            step.call("truncate", f"/proc/self/fd/{fd}", 5)
        assert step.observed == []
    finally:
        os.close(fd)


def test_a_bind_mount_of_one_file_of_a_nested_subvolume(sandbox: Path) -> None:
    """No directory leads there: the path ends in another file system."""
    made, place = nested(sandbox), sandbox / "bound"
    place.touch()
    run("mount", "--bind", made.folder / "a", place)
    try:
        step = Traced(sandbox, made.folder)
        step.write(place, b"changed")
        step.chmod(place, 0o600)
        step.call("fchownat", CWD, str(place), 1, 1, 0)
        assert (made.folder / "a").read_bytes() == b"changed"
        assert step.undo() == []
        assert step.observed == []
    finally:
        run("umount", place)
        os.close(made.at)
        for end in made.ends:
            end()


def test_a_file_of_a_nested_subvolume_that_has_no_name_any_more(sandbox: Path) -> None:
    made = nested(sandbox)
    fd = os.open(made.folder / "a", os.O_RDWR)
    os.unlink(made.folder / "a")
    try:
        step = Traced(sandbox, made.folder)
        step.call("fchmod", fd, 0o600)
        step.call("truncate", f"/proc/self/fd/{fd}", 5)
        assert step.undo() == []
        assert step.observed == []
    finally:
        os.close(fd)
        os.close(made.at)
        for end in made.ends:
            end()


def test_a_number_that_is_used_again_is_looked_up_again(sandbox: Path) -> None:
    """What was outside has gone, and the kernel has given its number to a file system that is not."""
    place = sandbox / "place"
    place.mkdir()
    run("mount", "-t", "ramfs", "none", place)
    number = place.stat().st_dev
    step = Traced(sandbox, sandbox / "elsewhere")
    step.write(place / "file", b"in a ramfs")
    run("umount", place)
    mounted = []
    for n in range(64):  # the lowest free number is taken first
        folder = sandbox / f"tmpfs{n}"
        folder.mkdir()
        run("mount", "-t", "tmpfs", "none", folder)
        mounted.append(folder)
        if folder.stat().st_dev == number:
            break
    try:
        assert mounted[-1].stat().st_dev == number, "the number was not used again, so this shows nothing"
        (mounted[-1] / "file").write_bytes(b"precious")
        os.utime(mounted[-1] / "file", (1, 1))
        before = look(mounted[-1])
        step.images.epoch_start = time.time_ns()
        time.sleep(0.03)
        step.chmod(mounted[-1] / "file", 0o600)
        assert look(mounted[-1]) != before
        assert step.undo() == []
        assert look(mounted[-1]) == before
    finally:
        for folder in mounted:
            run("umount", "-l", folder)
