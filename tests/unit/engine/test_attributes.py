# SPDX-License-Identifier: GPL-3.0-or-later
"""Project ids and hints of extent size come back, on file systems of their own; and the undo goes into directories that hand theirs on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import attributes, kernel
from engine.attributes import PROJINHERIT, Attributes
from engine.records import Flags, Image, decode, encode
from engine.store import Store
from engine.trace.images import Images
from engine.trace.resolve import Place
from engine.trace.subjects import Aspects, Inode
from engine.undo import undo
from engine.undoing.ground import Outcome
from engine.undolog import Writer
from engine.wanted import read

EXTSIZE = 0x800


@pytest.fixture
def place(sandbox: Path) -> Iterator[Path]:
    """On XFS, which has project ids without quotas. ext4 wants a kernel with CONFIG_QFMT_V2 for them."""
    image, place = sandbox / "image", sandbox / "place"
    with open(image, "wb") as f:
        f.truncate(320 << 20)  # the least that mkfs.xfs takes
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def of(path: Path) -> Attributes:
    fd = os.open(path, os.O_RDONLY)
    try:
        found = attributes.get(fd)
        assert found is not None
        return found
    finally:
        os.close(fd)


def change(path: Path, **fields: int) -> None:
    fd, found = os.open(path, os.O_RDONLY), of(path)
    try:
        attributes.put(fd, found._replace(**fields))
    finally:
        os.close(fd)


class Step:
    """One step of one transaction, its images taken by hand where the trace would."""

    def __init__(self, sandbox: Path) -> None:
        (sandbox / "state").mkdir()
        self.folder = sandbox / "tx"
        self.folder.mkdir()
        self.store, self.log = Store("tx", state=str(sandbox / "state")), Writer.create(str(self.folder))
        self.images = Images(self.store, self.log, outside=(), next_directory=1, observe=lambda _observed: None)
        self.images.epoch(1, 1)

    def touches(self, path: Path) -> None:
        """It will change the flags."""
        inode, key = self._inode(path)
        self.images.touch_metadata(inode, key, Aspects(flags=True))

    def writes(self, path: Path) -> None:
        self.images.touch_contents(*self._inode(path))

    def replaces(self, path: Path) -> None:
        """The name will go, or get another inode."""
        images, parent = self.images, os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            above = images.reader.stat(parent, b"", kernel.AT_EMPTY_PATH)
            directory = images.directory(parent, above)
            assert directory is not None
            name = os.fsencode(path.name)
            found = Place(parent, above, name, images.reader.stat_or_none(parent, name))
            imaged = images.touch_place(directory, found)
            if found.found is not None:
                images.keep(directory, found, imaged)
            images.touch_parent(directory, found)
        finally:
            os.close(parent)

    def _inode(self, path: Path) -> tuple[Inode, tuple[int, int, int | bytes]]:
        reader = self.images.reader
        state = reader.stat(kernel.AT_FDCWD, os.fsencode(path))
        fs = self.images.traced(state.dev, kernel.AT_FDCWD, os.fsencode(path))
        assert fs is not None
        return Inode(fs, reader.handle(kernel.AT_FDCWD, os.fsencode(path)), state, os.fsencode(path)), state.key

    def undo(self) -> Outcome:
        self.images.settle_all()
        outcome = undo(self.store, self.log, read(str(self.folder)), epoch=0)
        self.log.close()
        self.store.close()
        return outcome


@pytest.fixture
def begin(sandbox: Path) -> Callable[[], Step]:
    return lambda: Step(sandbox)


def tree(place: Path, projid: int = 77) -> Path:
    """A directory of a project, as `xfs_quota project -s` leaves it, and one file in it that is of none."""
    top = place / "top"
    (top / "sub").mkdir(parents=True)
    (top / "file").write_text("old\n", encoding="ascii")
    (top / "sub" / "in").write_text("old\n", encoding="ascii")
    os.symlink("nowhere", top / "link")
    (top / "other").write_text("old\n", encoding="ascii")
    for path in (top / "file", top / "sub" / "in"):
        change(path, projid=projid)
    for path in (top / "sub", top):
        change(path, projid=projid, xflags=PROJINHERIT)
    return top


def look(top: Path) -> dict[str, object]:
    """All of it, but for links' project ids, which only the newest kernels tell."""
    found: dict[str, object] = {}
    for path in (top, *sorted(top.rglob("*"))):
        found[path.name] = os.readlink(path) if path.is_symlink() else (of(path), path.is_dir() or path.read_bytes())
    return found


def test_what_is_remade_in_a_project_has_its_id(place: Path, begin: Callable[[], Step]) -> None:
    top = tree(place)
    before = look(top)
    step = begin()
    for path in (top / "sub" / "in", top / "sub", top / "file", top / "link", top / "other"):
        step.replaces(path)
    shutil.rmtree(top / "sub")
    for name in ("file", "link", "other"):
        (top / name).unlink()
        (top / name).write_text("new\n", encoding="ascii")
    assert step.undo().differs == []
    assert look(top) == before


def test_of_an_older_log_what_is_remade_gets_the_directorys_id(
    place: Path, begin: Callable[[], Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, nothing says what ids there were."""
    top = tree(place)
    (top / "other").unlink()
    before = look(top)
    step = begin()
    (step.folder / "attributes").unlink()
    append, small = step.log.append, False

    def as_before(record: Image) -> None:
        """Of a small file without flags there was no record at all."""
        if not isinstance(record, Flags):
            append(record)
        elif not small:
            append(record._replace(attributes=None))

    monkeypatch.setattr(step.log, "append", as_before)
    for path in (top / "sub" / "in", top / "sub", top / "file", top / "link"):
        small = path.name in ("in", "file")
        step.replaces(path)
    monkeypatch.undo()
    shutil.rmtree(top / "sub")
    for name in ("file", "link"):
        (top / name).unlink()
        (top / name).write_text("new\n", encoding="ascii")
    assert step.undo().differs == []
    assert look(top) == before


def test_a_project_that_a_step_set_up_is_gone(place: Path, begin: Callable[[], Step]) -> None:
    """It gives a tree to a project, and then removes files that were in none."""
    top = tree(place, 0)
    change(top, xflags=0)
    change(top / "sub", xflags=0)
    before = look(top)
    step = begin()
    for path in (top, top / "sub", top / "file", top / "sub" / "in"):
        step.touches(path)
        change(path, projid=5, xflags=PROJINHERIT if path.is_dir() else 0)
    for name in ("file", "other"):
        step.replaces(top / name)
        (top / name).unlink()
    assert step.undo().differs == []
    assert look(top) == before


def test_a_kept_link_goes_into_a_directory_of_another_project(place: Path, begin: Callable[[], Step]) -> None:
    top = tree(place)
    (top / "file").write_text("x" * 5000, encoding="ascii")
    before = look(top)
    step = begin()
    step.replaces(top / "file")
    (top / "file").unlink()
    step.touches(top)
    change(top, projid=5)
    assert step.undo().differs == []
    assert look(top) == before


def test_a_file_system_that_is_one_project_has_its_store_outside_of_it(place: Path, begin: Callable[[], Step]) -> None:
    """What is of none, else, could neither be kept nor moved there."""
    (place / "big").write_text("x" * 5000, encoding="ascii")
    change(place, projid=9, xflags=PROJINHERIT)
    step = begin()
    for name in ("new", "big"):
        step.replaces(place / name)
    (place / "new").mkdir()
    change(place / "new", projid=0, xflags=0)
    inode = (place / "big").stat().st_ino
    (place / "big").unlink()
    assert step.undo().differs == []
    assert not (place / "new").exists()
    assert ((place / "big").stat().st_ino, of(place / "big")) == (inode, attributes.NONE)


def test_hints_of_extent_size(place: Path, begin: Callable[[], Step]) -> None:
    """XFS takes one only for a file without data."""
    for name in ("empty", "emptied", "had"):
        (place / name).touch()
    change(place / "had", extsize=65536, xflags=EXTSIZE)
    for name in ("emptied", "had"):
        (place / name).write_text("old\n" * 3000, encoding="ascii")
    before = look(place)
    step = begin()
    for name, size in (("empty", 1 << 20), ("emptied", 1 << 20), ("had", 0)):
        step.touches(place / name)
        step.writes(place / name)
        os.truncate(place / name, 0)
        change(place / name, extsize=size, xflags=EXTSIZE if size else 0)
        (place / name).open("ab").write(b"new\n")
    assert look(place) != before
    assert step.undo().differs == []
    found = look(place)
    assert {name: found[name] for name in ("empty", "emptied", "had")} == {name: before[name] for name in ("empty", "emptied", "had")}


def test_a_locked_file(place: Path, begin: Callable[[], Step]) -> None:
    """The lock goes for so long, and is back at the end."""
    path = place / "locked"
    path.touch()
    change(path, projid=3)
    fd = os.open(path, os.O_RDONLY)
    kernel.set_flags(fd, kernel.FS_IMMUTABLE_FL)
    step = begin()
    step.touches(path)
    kernel.set_flags(fd, 0)
    change(path, projid=4)
    kernel.set_flags(fd, kernel.FS_IMMUTABLE_FL)
    assert step.undo().differs == []
    assert (of(path).projid, kernel.get_flags(fd)) == (3, kernel.FS_IMMUTABLE_FL)
    kernel.set_flags(fd, 0)
    os.close(fd)


def test_what_does_not_come_back_is_told(place: Path, begin: Callable[[], Step], monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / "file"
    path.touch()
    step = begin()
    step.touches(path)
    change(path, projid=4)
    monkeypatch.setattr(attributes, "put", lambda _fd, _wanted: None)
    assert step.undo().differs == [f"{path}: project id"]


def test_older_engines_pass_over_the_attributes() -> None:
    """Flags of a log without them are read, and those with them begin with what an older engine reads."""
    kind, plain = encode(Flags(1, 2, b"handle", 16))
    assert decode(kind, plain) == Flags(1, 2, b"handle", 16, None)
    record = Flags(1, 2, b"handle", 16, Attributes(PROJINHERIT, 4096, 77, 0))
    assert encode(record)[1].startswith(plain)
    assert decode(*encode(record)) == record
