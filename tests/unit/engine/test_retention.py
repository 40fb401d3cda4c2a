# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a transaction's images and reserves, where a file system does not let go of them, or an undo needs them again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import kernel, paths, retention
from engine.boot import boot_id
from engine.errors import WrongState
from engine.journal import Journal
from engine.model import Transaction
from engine.records import EpochStarted, FileSystemSeen
from engine.retention import Limits
from engine.store import Store
from engine.undolog import Writer

AT_ONCE = Limits(days=0)


@pytest.fixture
def journal(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    place = sandbox / "acid"
    for name in ("tx", "store"):
        (place / name).mkdir(parents=True)
    monkeypatch.setattr(retention, "STATE", str(place))
    monkeypatch.setattr(retention, "_LOGS", str(place / "tx"))
    monkeypatch.setattr(retention, "_discard_probes", lambda _journal: None)
    monkeypatch.setattr(paths.directory_of, "__defaults__", (str(place),))
    monkeypatch.setattr(Store.__init__, "__kwdefaults__", {**Store.__init__.__kwdefaults__, "state": str(place)})
    made = Journal(str(place / "journal.db"))
    yield made
    made.close()


@pytest.fixture
def disk(sandbox: Path) -> Iterator[Path]:
    """The mount point of a file system of its own."""
    image, place = sandbox / "image", sandbox / "disk"
    with open(image, "wb") as f:
        f.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def committed(journal: Journal, disk: Path | None = None) -> tuple[Transaction, Store]:
    """With a reserve and an image on `disk`."""
    value = journal.begin(name="n", owner="o", options={}, boot_id=boot_id(), engine="e")
    os.mkdir(paths.directory_of(value.id))
    log, store = Writer.create(paths.directory_of(value.id)), Store(value.id)
    log.append(EpochStarted(0, 0))
    if disk is not None:
        (disk / "one").write_text("one\n")
        reader, path = kernel.Reader(), os.fsencode(disk / "one")
        fs = store.file_system(reader.stat(kernel.AT_FDCWD, path).dev)
        assert fs is not None
        store.room.take_reserve(fs)
        store.keep_link(fs, -1, b"", reader.handle(kernel.AT_FDCWD, path))
        log.append(FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point))
    log.write_head(durable=True)
    log.close()
    return journal.set_state(value.id, "COMMITTED"), store


def stored(disk: Path) -> list[str]:
    folders = list((disk / ".acid-store").glob("*"))
    return sorted(path.name for folder in folders for path in folder.iterdir())


def marker(value: Transaction) -> Path:
    return Path(paths.directory_of(value.id), "reserves")


def test_a_reserve_on_what_is_read_only_by_now_is_released_later(journal: Journal, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the next agent; the commit has come to pass all the same."""
    value, store = committed(journal, disk)
    assert stored(disk) == ["1", "reserve"]
    remount(disk, "ro")
    store.room.release_reserves()
    assert f"the reserve on {disk} stays there: Read-only file system" in capsys.readouterr().err
    store.close()
    retention.release_left_reserves(journal)
    assert marker(value).exists()
    remount(disk, "rw")
    for _again in range(2):
        retention.release_left_reserves(journal)
        assert not marker(value).exists()
        assert stored(disk) == ["1"]


def test_images_on_what_is_read_only_by_now_go_later(journal: Journal, disk: Path) -> None:
    """And those of other transactions at once."""
    value, store = committed(journal, disk)
    other, empty = committed(journal)
    remount(disk, "ro")
    store.room.release_reserves()
    for open_one in (store, empty):
        open_one.close()
    assert retention.gc(journal, limits=AT_ONCE) == [other.id]
    assert retention.gc(journal, limits=AT_ONCE) == []
    assert marker(value).exists()
    assert stored(disk) == ["1", "reserve"]
    remount(disk, "rw")
    assert retention.gc(journal, limits=AT_ONCE) == [value.id]
    assert not (disk / ".acid-store").exists()
    assert not marker(value).parent.exists()
    assert retention.gc(journal, limits=AT_ONCE) == []


@pytest.mark.parametrize("limits", [AT_ONCE, Limits(days=9, percent=-1)])
def test_a_rollback_that_begins_meanwhile_keeps_its_images(journal: Journal, monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    (undone, _store), (other, _other_store) = committed(journal), committed(journal)
    drop_images = journal.drop_images

    def late(tx: str) -> None:
        if tx == undone.id:
            journal.set_state(tx, "ABORTING")
        drop_images(tx)

    monkeypatch.setattr(journal, "drop_images", late)
    assert retention.gc(journal, limits=limits) == [other.id]
    assert marker(undone).parent.exists()
    assert journal.get(undone.id).images
    with pytest.raises(WrongState):
        drop_images(undone.id)


def _sized(value: Transaction, blocks: int) -> Transaction:
    marker(value).parent.joinpath("more").write_bytes(b"x" * 4096 * blocks)
    return value


def test_one_walk_says_which_ones_are_too_many(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree was walked again for each transaction dropped: minutes, of 100,000 kept inodes each."""
    values = [_sized(committed(journal)[0], 256) for _one in range(6)]
    walked: list[str] = []
    walk = os.walk

    def seen(path: str, **more: object) -> object:
        walked.append(path)
        return walk(path, **more)

    monkeypatch.setattr(retention.os, "walk", seen)
    share = retention._taken(retention.STATE)
    assert share.keys() >= {value.id for value in values}
    walked.clear()
    half = sum(share.values()) - 2.5 * share[values[0].id]
    assert retention.gc(journal, limits=Limits(days=9, percent=half)) == [value.id for value in values[:3]]
    assert walked == [retention.STATE]
    assert [journal.get(value.id).images for value in values] == [False] * 3 + [True] * 3


def test_cleaning_stops_where_it_is_told_to_and_the_next_one_does_the_rest(journal: Journal) -> None:
    values = [committed(journal)[0] for _one in range(4)]
    asked: list[bool] = []

    def twice() -> bool:
        asked.append(len(asked) < 2)
        return asked[-1]

    assert retention.gc(journal, limits=AT_ONCE, goes_on=twice) == [value.id for value in values[:2]]
    assert [os.path.exists(paths.directory_of(value.id)) for value in values] == [False, False, True, True]
    assert retention.gc(journal, limits=AT_ONCE) == [value.id for value in values[2:]]


def test_what_probes_keep_is_looked_at_once_and_before_the_logs_go(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a death in between would leave it for ever: by its log the next gc knows that a drop is not at its end."""
    values = [committed(journal)[0] for _one in range(3)]
    there: list[list[bool]] = []
    monkeypatch.setattr(retention, "_discard_probes", lambda _j: there.append([os.path.exists(paths.directory_of(v.id)) for v in values]))
    retention.gc(journal, limits=AT_ONCE)
    assert there == [[True, True, True]]
