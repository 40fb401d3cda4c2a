# SPDX-License-Identifier: GPL-3.0-or-later
"""btrfs subvolumes as a step removes and moves them: exact after the undo, or named, which `irreversible: deny` refuses."""

from __future__ import annotations

import importlib.util
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine.errors import Denied
from engine.model import IRREVERSIBLE
from engine.store import Store
from engine.trace.subjects import Pretended
from engine.undo import undo
from engine.undolog import Writer
from engine.wanted import read

_spec = importlib.util.spec_from_file_location("traced_calls", Path(__file__).with_name("traced_calls.py"))
assert _spec is not None
assert _spec.loader is not None
traced_calls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traced_calls)
Traced, look, EXCHANGE = traced_calls.Traced, traced_calls.look, traced_calls.EXCHANGE

LARGE = b"precious\n" * 1000
CWD, REMOVEDIR = -100, 0x200


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def place(sandbox: Path) -> Iterator[Path]:
    """A btrfs with the subvolumes `tree/sv` (with files, and with `inner`, an empty one, in it) and `empty`."""
    image, place = sandbox / "disk", sandbox / "place"
    with open(image, "wb") as f:
        f.truncate(128 << 20)
    run("mkfs.btrfs", "-q", image)
    place.mkdir()
    run("mount", "-o", "loop", image, place)
    for name in ("tree", "other"):
        (place / name).mkdir()
    for name in ("tree/sv", "tree/sv/inner", "empty"):
        run("btrfs", "subvolume", "create", place / name)
    (place / "tree/sv/large").write_bytes(LARGE)
    (place / "tree/sv/small").write_text("small")
    (place / "tree/sv/folder").mkdir()
    (place / "tree/sv/folder/large").write_bytes(LARGE)
    yield place
    run("umount", "-l", place)


def rmdir(step: Traced, path: Path) -> None:
    try:
        step.call("unlinkat", CWD, str(path), REMOVEDIR)
    except Pretended:
        assert not path.exists()


def empty(step: Traced, path: Path) -> None:
    """As rm -r does."""
    for child in sorted(path.iterdir()):
        if child.name == ".acid-store":
            with pytest.raises(Pretended):
                step.sees("unlinkat", CWD, str(child), REMOVEDIR)
        elif stat.S_ISDIR(child.lstat().st_mode):
            empty(step, child)
        else:
            step.unlink(child)
    rmdir(step, path)


ACTS: dict[str, Callable[[Traced, Path], object]] = {
    "rmdir of an empty one": lambda step, place: rmdir(step, place / "empty"),
    "rmdir of an inner one": lambda step, place: rmdir(step, place / "tree/sv/inner"),
    "rm -r of a tree with one in it": lambda step, place: empty(step, place / "tree"),
    "rename": lambda step, place: step.rename(place / "tree/sv", place / "tree/new"),
    "rename into another directory": lambda step, place: step.rename(place / "tree/sv", place / "other/sv"),
    "rename of an inner one": lambda step, place: step.rename(place / "tree/sv/inner", place / "tree/sv/folder/inner"),
    "exchange with a directory": lambda step, place: step.rename(place / "tree/sv", place / "other", EXCHANGE),
    "write, rename, write": lambda step, place: (
        step.write(place / "tree/sv/large", b"changed"),
        step.rename(place / "tree/sv", place / "other/sv"),
        step.unlink(place / "other/sv/folder/large"),
        step.chmod(place / "other/sv", 0o700),
    ),
    "rename, and remove it there": lambda step, place: (
        step.rename(place / "tree/sv", place / "other/sv"),
        empty(step, place / "other/sv"),
    ),
    "rename of the tree that it is in": lambda step, place: (
        step.unlink(place / "tree/sv/large"),
        step.rename(place / "tree", place / "other/tree"),
    ),
    "remove it, and make a directory there": lambda step, place: (rmdir(step, place / "empty"), step.mkdir(place / "empty")),
}


def subvolumes(place: Path) -> list[str]:
    return sorted(
        str(path.relative_to(place)) for path in place.rglob("*") if path.lstat().st_ino == 256 and ".acid-store" not in path.parts
    )


@pytest.mark.parametrize("agent", ["the same agent", "another agent"])
@pytest.mark.parametrize("name", ACTS)
def test_exact(sandbox: Path, place: Path, name: str, agent: str) -> None:
    before, known = look(place), subvolumes(place)
    step = Traced(sandbox, place)
    ACTS[name](step, place)
    assert look(place) != before
    assert step.observed == []
    if agent == "the same agent":
        assert step.undo() == []
    else:
        step.capture.settle()
        step.log.close()
        step.store.close()
        folder = str(step.folder)
        store, log = Store("tx", state=str(sandbox / "state")), Writer.resume(folder)
        outcome = undo(store, log, read(folder), epoch=0)
        log.close()
        store.close()
        assert (outcome.differs, outcome.moot) == ([], [])
        assert look(place) == before
    assert subvolumes(place) == known


def test_what_is_not_undone_goes_with_the_store(sandbox: Path, place: Path) -> None:
    """Of a transaction that was committed."""
    step = Traced(sandbox, place)
    empty(step, place / "tree")
    step.capture.settle()
    step.store.remove()
    assert not (place / ".acid-store").exists()
    assert not (place / "tree").exists()


ACROSS: dict[str, Callable[[Traced, Path], object]] = {
    "out of one": lambda step, place: step.rename(place / "tree/sv/inner", place / "inner"),
    "into one": lambda step, place: step.rename(place / "empty", place / "tree/sv/empty"),
}


@pytest.mark.parametrize("name", ACROSS)
def test_a_move_between_two_is_named(sandbox: Path, place: Path, name: str) -> None:
    step = Traced(sandbox, place)
    ACROSS[name](step, place)
    assert [seen.kind for seen in step.observed] == [IRREVERSIBLE]
    assert "move of the btrfs subvolume" in step.observed[0].text


@pytest.mark.parametrize("name", ACROSS)
def test_a_move_between_two_is_refused_under_deny(sandbox: Path, place: Path, name: str) -> None:
    step = Traced(sandbox, place, deny=True)
    with pytest.raises(Denied):
        ACROSS[name](step, place)
    assert step.undo() == []


FAILING: dict[str, Callable[[Traced, Path], object]] = {
    "rmdir of one that holds something": lambda step, place: rmdir(step, place / "tree/sv"),
    "rename of a file into one": lambda step, place: (
        step.write(place / "file", b"new"),
        step.rename(place / "file", place / "tree/sv/file"),
    ),
    "rename over an empty one": lambda step, place: step.rename(place / "other", place / "empty"),
    "rename of a file out of one": lambda step, place: step.rename(place / "tree/sv/large", place / "large"),
}


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_changes_nothing_and_is_not_named(sandbox: Path, place: Path, name: str) -> None:
    step = Traced(sandbox, place, deny=True)
    with pytest.raises(OSError, match=r"Directory not empty|Invalid cross-device link"):
        FAILING[name](step, place)
    assert step.undo() == []


def test_a_caller_who_may_not_remove_it(sandbox: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent does not do for him what the kernel would refuse: he makes the call himself, and it is named."""
    monkeypatch.setattr("engine.trace.subvolumes.may_remove_all", lambda thread: False)
    step = Traced(sandbox, place)
    step.sees("unlinkat", CWD, str(place / "empty"), REMOVEDIR)
    assert (place / "empty").is_dir()
    assert "removal of the btrfs subvolume" in step.observed[0].text


def test_who_may_remove_all() -> None:
    from engine.trace.subvolumes import may_remove_all

    def ask(*words: str) -> bool:
        child = subprocess.Popen([*words, "sh", "-c", "echo .; exec sleep 60"], stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            assert child.stdout.read(1)
            return may_remove_all(child.pid)
        finally:
            child.kill()
            child.communicate()

    assert shutil.which("setpriv")
    assert ask("env")
    assert not ask("setpriv", "--reuid", "65534", "--clear-groups")
    assert not ask("setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override")
    assert not ask("unshare", "--user", "--map-root-user")


def test_what_stands_for_a_subvolume_in_a_snapshot(sandbox: Path, place: Path) -> None:
    run("btrfs", "subvolume", "snapshot", place / "tree/sv", place / "snapshot")
    assert (place / "snapshot/inner").lstat().st_ino == 2
    step = Traced(sandbox, place, deny=True)
    with pytest.raises(Denied, match="removal of the btrfs subvolume"):
        rmdir(step, place / "snapshot/inner")
    assert (place / "snapshot/inner").is_dir()


def test_the_mount_point_is_the_callers_to_keep(sandbox: Path, place: Path) -> None:
    """The call fails. What is mounted there is none of the place's: an undo that took it for that moved it there."""
    (place / "mounted").mkdir()
    step = Traced(sandbox, place)
    run("mount", "--bind", place / "other", place / "mounted")
    try:
        with pytest.raises(OSError, match="busy"):
            rmdir(step, place / "mounted")
        with pytest.raises(OSError, match="busy"):
            step.rename(place / "mounted", place / "moved")
    finally:
        run("umount", place / "mounted")
    assert step.undo() == []
