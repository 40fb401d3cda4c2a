# SPDX-License-Identifier: GPL-3.0-or-later
"""An error of one place or inode is its own: it is told with its path, all else is undone, and the undo can be asked for again."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import kernel, restore
from engine.store import Store
from engine.undo import look_again, undo
from engine.undoing.ground import Outcome
from engine.wanted import read

_spec = importlib.util.spec_from_file_location("traced_calls", Path(__file__).with_name("traced_calls.py"))
assert _spec is not None
assert _spec.loader is not None
traced_calls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traced_calls)
Traced = traced_calls.Traced

BIG = 100 << 10  # a copy; smaller contents lie in the log


def mounted(place: Path, *arguments: str) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", *arguments, str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def disk(sandbox: Path) -> Iterator[Path]:
    image = sandbox / "image"
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    yield from mounted(sandbox / "disk", "-o", "loop", str(image))


@pytest.fixture
def memory(sandbox: Path) -> Iterator[Path]:
    yield from mounted(sandbox / "memory", "-t", "tmpfs", "-o", "size=1m", "none")


def told(outcome: Outcome) -> set[str]:
    assert not any("/proc/" in line for line in outcome.differs)
    return {line.partition(": ")[0] for line in outcome.differs}


def fails(call: Callable[..., Any], number: int, when: Callable[..., bool]) -> Callable[..., Any]:
    def act(*arguments: Any, **named: Any) -> Any:
        if when(*arguments, **named):
            raise OSError(number, os.strerror(number), "/proc/self/fd/20")
        return call(*arguments, **named)

    return act


class Changed:
    """A step has changed files `a` to `e` in place: small ones and large ones."""

    def __init__(self, sandbox: Path, place: Path) -> None:
        self.paths = [place / name for name in "abcde"]
        for at, path in enumerate(self.paths):
            path.write_bytes(os.urandom(BIG if at % 2 else 100))
        self.old = {path: path.read_bytes() for path in self.paths}
        (place / "gone").write_bytes(b"gone")
        self.step = Traced(sandbox, place)
        for path in self.paths:
            self.step.write(path, b"changed")
        self.step.unlink(place / "gone")
        self.step.write(place / "new", b"new")

    def exact_again(self) -> None:
        outcome = self.step.undo_once()
        assert outcome.differs == []
        assert self.step.not_as_before() == []
        self.step.close()


def test_what_does_not_fit_is_told_and_its_copy_stays(sandbox: Path, memory: Path) -> None:
    """pwrite(2) takes what fits, and the size is right all the same."""
    (memory / "f").write_bytes(os.urandom(BIG))
    (memory / "g").write_bytes(b"old")
    step = Traced(sandbox, memory)
    step.write(memory / "f", b"x")
    step.write(memory / "g", b"x")
    room = os.statvfs(memory)
    (memory / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - (60 << 10)))
    outcome = step.undo_once()
    assert told(outcome) == {str(memory / "f")}
    assert os.strerror(errno.ENOSPC) in outcome.differs[0]
    assert (memory / "g").read_bytes() == b"old"
    (memory / "ballast").unlink()
    assert step.undo_once().differs == []
    lines = step.not_as_before()
    assert all(line.startswith(f"{memory}: ") for line in lines), lines  # the ballast is somebody else's: the directory's time
    step.close()


@pytest.mark.parametrize("lie", ["nothing is written", "zeros are written", "the image is not read"])
def test_contents_are_looked_at_again(sandbox: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    changed, real = Changed(sandbox, disk), os.pwrite
    with monkeypatch.context() as patch:
        if lie == "the image is not read":
            patch.setattr(restore, "set_contents", lambda fd, _source, size: os.ftruncate(fd, size))
        else:
            patch.setattr(os, "pwrite", lambda fd, data, at: len(data) if lie == "nothing is written" else real(fd, bytes(len(data)), at))
        outcome = changed.step.undo_once()
    large = {str(path) for path in changed.paths[1::2]}
    assert told(outcome) == (large if lie == "the image is not read" else {*map(str, changed.paths), str(disk / "gone")})
    changed.exact_again()


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.EPERM, errno.ELOOP, errno.ENOTDIR])
@pytest.mark.parametrize("where", ["open", "utime", "read"])
def test_one_inodes_error_is_its_own(sandbox: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str) -> None:
    changed = Changed(sandbox, disk)
    wrong = changed.paths[1].stat().st_ino

    def of_it(path: Any, *_arguments: Any, **_named: Any) -> bool:
        return str(os.fsdecode(path) if not isinstance(path, int) else "").startswith("/proc/self/fd/") and os.stat(path).st_ino == wrong

    with monkeypatch.context() as patch:
        if where == "open":
            patch.setattr(os, "open", fails(os.open, number, of_it))
        elif where == "utime":
            patch.setattr(os, "utime", fails(os.utime, number, of_it))
        else:
            patch.setattr(os, "pread", fails(os.pread, number, lambda fd, *_more: os.fstat(fd).st_ino == wrong))
        outcome = changed.step.undo_once()
    assert told(outcome) == {str(changed.paths[1])}
    assert [path for path in changed.paths if path.read_bytes() != changed.old[path]] == ([] if where == "utime" else [changed.paths[1]])
    assert (disk / "gone").exists() and not (disk / "new").exists()
    changed.exact_again()


def test_a_file_system_that_turns_read_only(sandbox: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each path that could not be put back is told, and none as /proc/self/fd/20."""
    changed, real, done = Changed(sandbox, disk), restore.set_bytes, []

    def then_read_only(fd: int, data: bytes) -> None:
        real(fd, data)
        done.append(fd)
        if len(done) == 2:
            os.close(fd)  # a file that is open for writing keeps it from turning read-only
            os.dup2(os.open(changed.paths[0], os.O_RDONLY), fd)
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    with monkeypatch.context() as patch:
        patch.setattr(restore, "set_bytes", then_read_only)
        outcome = changed.step.undo_once()
    lines = [line for line in outcome.differs if os.strerror(errno.EROFS) in line]
    assert {line.partition(": ")[0] for line in lines} >= {str(path) for path in changed.paths[1:]}
    assert told(outcome) <= {str(disk), *map(str, changed.paths), str(disk / "gone"), str(disk / "new")}
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    changed.exact_again()


def test_a_place_under_a_mount(sandbox: Path, disk: Path) -> None:
    (disk / "folder").mkdir()
    (disk / "f").write_bytes(b"old")
    step = Traced(sandbox, disk)
    step.write(disk / "f", b"new")
    step.rename(disk / "folder", disk / "elsewhere")
    step.mkdir(disk / "folder")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(disk / "folder")], check=True)
    outcome = step.undo_once()
    assert told(outcome) == {str(disk / "folder")}
    assert outcome.differs[0].endswith(("something is mounted there", os.strerror(errno.EBUSY)))
    assert (disk / "f").read_bytes() == b"old"
    subprocess.run(["umount", str(disk / "folder")], check=True)
    assert step.undo_once().differs == []
    assert step.not_as_before() == []
    step.close()


def test_what_stands_where_something_failed_is_not_lost(sandbox: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of two files were exchanged. Where the one that stands in the way cannot be staged, nothing goes over it."""
    (disk / "one").write_bytes(b"1" * 9000)
    (disk / "two").write_bytes(b"2" * 9000)
    step = Traced(sandbox, disk)
    step.rename(disk / "one", disk / "two", 2)
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "link_fd", fails(kernel.link_fd, errno.EIO, lambda _fd, _folder, name: name.startswith(b"s-")))
        outcome = step.undo_once()
    assert told(outcome) == {str(disk / "one"), str(disk / "two")}
    assert {(disk / name).read_bytes()[:1] for name in ("one", "two")} == {b"1", b"2"}
    assert step.undo_once().differs == []
    assert step.not_as_before() == []
    step.close()


@pytest.mark.parametrize("what", ["a directory", "a file in one"])
def test_what_cannot_be_made_anew_is_told(sandbox: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    for name in ("x", "y"):
        (disk / name).mkdir()
        (disk / name / "f").write_bytes(b"old")
    step = Traced(sandbox, disk)
    for name in ("x", "y"):
        step.unlink(disk / name / "f")
        step.call("unlinkat", -100, str(disk / name), 0x200)
    made: list[bytes] = []
    with monkeypatch.context() as patch:
        name, call = ("mkdir", os.mkdir) if what == "a directory" else ("_fill", None)
        if call is not None:
            patch.setattr(
                os,
                name,
                fails(call, errno.EIO, lambda path, *_more, **_named: path.startswith(b"d-") and not made.append(path) and len(made) == 1),
            )
        else:
            patch.setattr(
                restore, "set_bytes", fails(restore.set_bytes, errno.EIO, lambda _fd, data: not made.append(data) and len(made) == 1)
            )
        outcome = step.undo_once()
    lost = "y" if (disk / "x" / "f").exists() else "x"
    assert told(outcome) == {str(disk / lost / "f"), *([str(disk / lost)] if what == "a directory" else [])}
    assert step.undo_once().differs == []
    assert step.not_as_before() == []
    step.close()


def test_an_error_while_it_is_verified_ends_nothing(sandbox: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Changed(sandbox, disk)
    with monkeypatch.context() as patch:
        patch.setattr(
            restore, "differences", fails(restore.differences, errno.EIO, lambda _fd, basic, *_more, **_named: basic.path.endswith(b"/c"))
        )
        outcome = changed.step.undo_once()
    assert told(outcome) == {str(changed.paths[2])}
    changed.exact_again()


def test_what_does_not_get_to_the_disk_is_told(sandbox: Path, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = Changed(sandbox, disk)
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "syncfs", fails(kernel.syncfs, errno.EIO, lambda _fd: True))
        outcome = changed.step.undo_once()
    assert outcome.differs == [f"{disk}: not all that was undone there is on the disk: {os.strerror(errno.EIO)}"]
    changed.exact_again()


# -- programs that are being run -------------------------------------------------------------------------------------------


class Program:
    """A step has written over `tool`, a copy of sleep(1), and somebody runs it; then it changes more."""

    def __init__(self, sandbox: Path, disk: Path, prepare: Callable[[Path], object] = lambda _tool: None) -> None:
        self.tool = disk / "tool"
        shutil.copy("/bin/sleep", self.tool)
        os.chown(self.tool, 5, 6)
        os.chmod(self.tool, 0o4755)
        os.setxattr(self.tool, "user.mark", b"old")
        os.utime(self.tool, ns=(1, 2))
        prepare(self.tool)
        (disk / "conf").write_bytes(b"old")
        self.changed = Path("/bin/sleep").read_bytes() + b"changed"
        self.step = Traced(sandbox, disk)
        self.step.write(self.tool, self.changed)
        self.step.write(disk / "conf", b"new")
        self.process = subprocess.Popen([str(self.tool), "300"])
        while os.readlink(f"/proc/{self.process.pid}/exe") != str(self.tool):
            time.sleep(0.01)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.step.close()


@pytest.mark.parametrize("names", [1, 3])
def test_a_program_that_is_being_run(sandbox: Path, disk: Path, names: int) -> None:
    """It is made anew with all its metadata, at all its names; who runs it goes on."""
    program = Program(sandbox, disk, lambda tool: [os.link(tool, disk / f"link{n}") for n in range(names - 1)])
    outcome = program.step.undo_once()
    assert outcome.differs == []
    assert program.step.not_as_before() == []
    assert os.getxattr(program.tool, "user.mark") == b"old"
    assert program.process.poll() is None
    program.end()


def test_one_with_a_name_that_is_not_known_is_told(sandbox: Path, disk: Path) -> None:
    """Of three, in three directories: the kernel tells one path of a file, and the log another."""
    for name in ("far", "further"):
        (disk / name).mkdir()
    program = Program(sandbox, disk, lambda tool: [os.link(tool, disk / name / "link") for name in ("far", "further")])
    outcome = program.step.undo_once()
    assert told(outcome) == {str(program.tool)}
    assert "not all of its 3 names" in outcome.differs[0]
    assert (disk / "conf").read_bytes() == b"old"
    assert (disk / "far" / "link").samefile(program.tool)
    assert program.tool.read_bytes() == program.changed
    program.process.kill()
    program.process.wait()
    assert program.step.undo_once().differs == []
    assert program.step.not_as_before() == []
    program.end()


@pytest.mark.parametrize("after", [0, 1])
def test_an_undo_that_dies_while_it_moves_one(sandbox: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """`after`: names that had been moved."""
    program = Program(sandbox, disk, lambda tool: os.link(tool, disk / "link"))
    moved: list[bytes] = []

    class Died(BaseException):
        pass

    def rename(old: bytes, new: bytes, **folders: int) -> None:
        if old == b"t-busy" and len(moved) == after:
            raise Died
        moved.append(new)
        real(old, new, **folders)

    real = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(Died):
            program.step.undo_once()
    assert program.step.undo_once().differs == []
    assert program.step.not_as_before() == []
    program.end()


def test_one_that_is_as_it_was_is_left(sandbox: Path, disk: Path) -> None:
    program = Program(sandbox, disk)
    program.process.kill()
    program.process.wait()
    program.tool.write_bytes(Path("/bin/sleep").read_bytes())
    inode = program.tool.stat().st_ino
    program.process = subprocess.Popen([str(program.tool), "300"])
    while os.readlink(f"/proc/{program.process.pid}/exe") != str(program.tool):
        time.sleep(0.01)
    assert program.step.undo_once().differs == []
    assert program.tool.stat().st_ino == inode
    assert program.step.not_as_before() == []
    program.end()


# -- what is moot -----------------------------------------------------------------------------------------------------------


def test_a_file_that_somebody_edited_by_rename_is_told(sandbox: Path, disk: Path) -> None:
    """The transaction's line is in the new one, too."""
    (disk / "f").write_bytes(b"one\ntwo\n")
    step = Traced(sandbox, disk)
    step.write(disk / "f", b"one\ntwo\nTX\n")
    (disk / "f.new").write_bytes(b"one\nadmin\nTX\n")
    os.rename(disk / "f.new", disk / "f")
    outcome = step.undo_once()
    assert told(outcome) == {str(disk / "f")} and outcome.moot == []
    assert list(outcome.replaced) == outcome.differs
    assert (disk / "f").read_bytes() == b"one\nadmin\nTX\n"
    assert told(step.undo_once()) == {str(disk / "f")}  # it does not become exact by being asked for again
    step.close()


def test_one_that_a_probe_put_back_by_rename_is_not(sandbox: Path, disk: Path) -> None:
    (disk / "f").write_bytes(b"one\n")
    info = (disk / "f").stat()
    step = Traced(sandbox, disk)
    step.write(disk / "f", b"TX\n")
    (disk / "f.new").write_bytes(b"daemon\nTX\n")
    os.rename(disk / "f.new", disk / "f")
    outcome = step.undo_once()
    assert told(outcome) == {str(disk / "f")}
    (disk / "f.new").write_bytes(b"one\n")
    os.utime(disk / "f.new", ns=(info.st_atime_ns, info.st_mtime_ns))
    os.chmod(disk / "f.new", info.st_mode & 0o7777)
    os.rename(disk / "f.new", disk / "f")
    look_again(step.store, step.log, read(str(step.folder)), outcome, epoch=0)
    assert outcome.differs == []
    assert read(str(step.folder)).contents == {}  # all of it is undone
    step.close()


def test_one_that_somebody_removed_is_moot(sandbox: Path, disk: Path) -> None:
    (disk / "f").write_bytes(b"one\n")
    step = Traced(sandbox, disk)
    step.write(disk / "f", b"TX\n")
    (disk / "f").unlink()
    outcome = step.undo_once()
    assert outcome.differs == [] and outcome.moot == [str(disk / "f")]
    step.close()


def test_names_that_the_steps_themselves_moved_are_no_replacement(sandbox: Path, disk: Path) -> None:
    """Born in one step, changed in the next, removed and born again in the third."""
    (disk / "f").write_bytes(b"old")
    step = Traced(sandbox, disk)
    step.mkdir(disk / "d")
    step.write(disk / "d" / "f", b"first")
    step.write(disk / "g", b"first")
    for epoch, text in ((2, b"second"), (3, b"third")):
        step.capture.settle()
        step.capture.epoch(epoch, epoch)
        time.sleep(0.03)
        for path in (disk / "d" / "f", disk / "g", disk / "f"):
            step.chmod(path, 0o600)
            step.write(disk / "fresh", text)
            step.rename(disk / "fresh", path)
    assert step.undo() == []


def test_a_directory_that_somebody_exchanged(sandbox: Path, disk: Path) -> None:
    """With what the transaction had made in the old one, or without."""
    for name in ("with", "without"):
        (disk / name).mkdir()
    step = Traced(sandbox, disk)
    for name in ("with", "without"):
        step.write(disk / name / "made", b"x")
        shutil.rmtree(disk / name)
        (disk / name).mkdir()
    (disk / "with" / "made").write_bytes(b"x")
    outcome = step.undo_once()
    assert told(outcome) == {str(disk / "with" / "made")}
    step.close()


def undo_by_another_agent(sandbox: Path, step: Any) -> Outcome:
    step.capture.settle()
    step.store.close()
    store = Store("tx", state=str(sandbox / "state"))
    try:
        return undo(store, step.log, read(str(step.folder)), epoch=0)
    finally:
        store.close()


def test_a_file_system_that_is_not_mounted_any_more_is_told(sandbox: Path, disk: Path) -> None:
    (disk / "f").write_bytes(b"old")
    step = Traced(sandbox, disk)
    step.write(disk / "f", b"new")
    step.capture.settle()
    step.store.close()
    subprocess.run(["umount", str(disk)], check=True)
    outcome = undo_by_another_agent(sandbox, step)
    assert outcome.differs == [f"{disk}: the ext4 file system is not mounted: what the transaction changed there is not undone"]
    subprocess.run(["mount", "-o", "loop", str(sandbox / "image"), str(disk)], check=True)
    assert undo_by_another_agent(sandbox, step).differs == []
    assert (disk / "f").read_bytes() == b"old"
    step.log.close()


def test_one_in_memory_is_moot_when_it_is_gone(sandbox: Path, memory: Path) -> None:
    (memory / "f").write_bytes(b"old")
    step = Traced(sandbox, memory)
    step.write(memory / "f", b"new")
    step.capture.settle()
    step.store.close()
    subprocess.run(["umount", str(memory)], check=True)
    outcome = undo_by_another_agent(sandbox, step)
    assert outcome.differs == [] and outcome.moot == [f"{memory}: tmpfs file system is not mounted"]
    subprocess.run(["mount", "-t", "tmpfs", "none", str(memory)], check=True)
    step.log.close()
