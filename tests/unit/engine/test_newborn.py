# SPDX-License-Identifier: GPL-3.0-or-later
"""What is taken for newborn needs no image, so nothing that is older may be."""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine.model import ASKED
from engine.trace.subjects import InStore, Pretended

_spec = importlib.util.spec_from_file_location("traced_calls", Path(__file__).with_name("traced_calls.py"))
assert _spec is not None
assert _spec.loader is not None
traced_calls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traced_calls)
Traced, EXCHANGE = traced_calls.Traced, traced_calls.EXCHANGE

HOUR = 3600 * 10**9


@pytest.fixture
def place(sandbox: Path) -> Iterator[Path]:
    """A file system of its own, with old files."""
    place = sandbox / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", str(place)], check=True)
    (place / "old").write_text("precious\n")
    (place / "large").write_text("precious\n" * 1000)
    (place / "linked").write_text("precious\n")
    os.link(place / "linked", place / "link")
    (place / "folder").mkdir()
    (place / "folder" / "old").write_text("below\n")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def newborn(step: Traced, folder: Path) -> Path:
    """A new directory that the trace knows by its path."""
    step.mkdir(folder)
    step.write(folder / "own", b"new")
    assert step.capture._newborn.covers(os.fsencode(folder / "any")), "its path is not learned, so this shows nothing"
    return folder


def over(step: Traced, path: Path) -> None:
    step.write(path.with_name("other"), b"other")
    step.rename(path.with_name("other"), path)


CHANGES: dict[str, Callable[[Traced, Path], None]] = {
    "truncate": lambda step, path: step.write(path, b"clobbered"),
    "unlink": lambda step, path: step.unlink(path),
    "chmod": lambda step, path: step.chmod(path, 0o600),
    "rename over it": over,
    "rename it": lambda step, path: step.rename(path, path.with_name("moved")),
    "unlink all": lambda step, path: (step.unlink(path), step.unlink(path.with_name("own"))),
    "move it on": lambda step, path: step.rename(path, path.parents[1] / "there"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["old", "large", "linked"])
def test_an_old_file_in_a_new_directory(sandbox: Path, place: Path, name: str, change: str) -> None:
    """Renamed into it, and changed there by an absolute path."""
    step = Traced(sandbox, place)
    folder = newborn(step, place / "new")
    step.rename(place / name, folder / "moved in")
    CHANGES[change](step, folder / "moved in")
    assert step.undo() == []


@pytest.mark.parametrize("change", ["truncate", "unlink", "chmod", "rename over it", "rename it"])
def test_an_old_file_that_changed_places_with_a_new_one(sandbox: Path, place: Path, change: str) -> None:
    step = Traced(sandbox, place)
    folder = newborn(step, place / "new")
    step.rename(folder / "own", place / "large", EXCHANGE)
    CHANGES[change](step, folder / "own")
    assert step.undo() == []


def test_an_old_file_that_is_linked_into_a_new_directory(sandbox: Path, place: Path) -> None:
    step = Traced(sandbox, place)
    folder = newborn(step, place / "new")
    step.call("linkat", -100, str(place / "old"), -100, str(folder / "linked in"), 0)
    step.write(folder / "linked in", b"clobbered")
    assert step.undo() == []


def test_an_old_directory_in_a_new_one(sandbox: Path, place: Path) -> None:
    step = Traced(sandbox, place)
    folder = newborn(step, place / "new")
    step.rename(place / "folder", folder / "moved in")
    step.write(folder / "moved in" / "old", b"clobbered")
    step.unlink(folder / "moved in" / "old")
    assert step.undo() == []


def test_an_old_file_two_new_directories_further(sandbox: Path, place: Path) -> None:
    """One that was moved in and on is old as before; what stays behind is newborn as before."""
    step = Traced(sandbox, place)
    first, second = newborn(step, place / "first"), newborn(step, place / "second")
    step.rename(place / "old", first / "moved in")
    step.rename(first / "moved in", second / "moved on")
    step.write(second / "moved on", b"clobbered")
    step.unlink(first / "own")
    assert step.undo() == []


@pytest.mark.parametrize("change", ["truncate", "unlink", "chmod", "rename over it"])
def test_a_clock_that_is_set_right_in_the_middle(sandbox: Path, place: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """It was an hour behind when the epoch began. Files from before have younger times of birth than that, and are old all the same."""
    real, behind = time.clock_gettime_ns, [HOUR]
    monkeypatch.setattr(time, "clock_gettime_ns", lambda which: real(which) - (behind[0] if which == time.CLOCK_REALTIME else 0))
    step = Traced(sandbox, place)
    behind[0] = 0
    CHANGES[change](step, place / "large")
    CHANGES[change](step, place / "linked")
    step.mkdir(place / "new")
    step.write(place / "new" / "file", b"new")
    assert step.undo() == []


def test_a_clock_that_is_set_back_in_the_middle(sandbox: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made after that is older than the epoch by its time of birth: it gets images, and goes all the same."""
    step = Traced(sandbox, place)
    real = time.clock_gettime_ns
    monkeypatch.setattr(time, "clock_gettime_ns", lambda which: real(which) - (HOUR if which == time.CLOCK_REALTIME else 0))
    step.images.epoch_start += HOUR  # inodes are stamped by a clock that no test sets
    step.mkdir(place / "new")
    step.write(place / "new" / "file", b"new")
    step.write(place / "new" / "file", b"again")
    step.rename(place / "old", place / "new" / "old")
    step.unlink(place / "new" / "old")
    assert step.undo() == []


def test_whoever_is_asked_may_mount_something_on_a_new_directory(sandbox: Path, place: Path) -> None:
    """systemd, say: the trace does not see what it does."""
    step = Traced(sandbox, place)
    folder = newborn(step, place / "new")
    address = struct.pack("<H", 1) + b"/run/systemd/private"
    step.sees("connect", 3, address, len(address))
    assert [(one.kind, one.text) for one in step.observed] == [(ASKED, "/run/systemd/private")]
    subprocess.run(["mount", "--bind", str(place / "folder"), str(folder)], check=True)
    try:
        step.write(folder / "old", b"clobbered")
        step.unlink(folder / "old")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert step.undo() == []


@pytest.mark.parametrize("path", ["/dev/log", "/run/systemd/journal/socket"])
def test_one_who_only_writes_down_is_no_doer(sandbox: Path, place: Path, path: str) -> None:
    step = Traced(sandbox, place)
    newborn(step, place / "new")
    address = struct.pack("<H", 1) + path.encode()
    step.sees("connect", 3, address, len(address))
    assert step.observed == [] and step.capture._newborn.covers(os.fsencode(place / "new" / "any"))


STORES = (".acid-store", ".acid-store/tx", ".acid-store/tx/c1")


def test_a_store_that_is_born_in_the_epoch_is_no_steps_to_change(sandbox: Path, place: Path) -> None:
    """The first step that needs one is the very one that goes on to `chmod -R` the tree in which it lies."""
    step = Traced(sandbox, place)
    step.write(place / "large", b"new")
    open_before = len(os.listdir("/proc/self/fd"))
    for name in STORES:
        path = str(place / name)
        for call in (("fchmodat", -100, path, 0o777), ("fchownat", -100, path, 1, 1, 0), ("utimensat", -100, path, 0, 0)):
            with pytest.raises(Pretended):
                step.sees(*call)
    with pytest.raises(InStore):
        step.sees("openat", -100, str(place / STORES[-1]), os.O_WRONLY)
    with pytest.raises(InStore):
        step.sees("openat", -100, str(place / ".acid-store" / "tx" / "x"), os.O_WRONLY | os.O_CREAT, 0o600)
    assert len(os.listdir("/proc/self/fd")) == open_before
    assert step.undo() == []


def test_a_path_longer_than_the_kernel_tells_is_no_store(sandbox: Path, place: Path) -> None:
    """What fails by itself fails by its own error there, too."""
    here = os.open(place / "folder", os.O_RDONLY)
    for _depth in range(20):
        os.mkdir("n" * 250, dir_fd=here)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("taken", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    step = Traced(sandbox, place / "old")  # it looks no further than that
    with pytest.raises(FileExistsError):
        step.call("openat", here, "taken", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(here)
    subprocess.run(["rm", "-rf", str(place / "folder")], check=True)
