# SPDX-License-Identifier: GPL-3.0-or-later
"""What refuses a rollback, before anything is killed or touched; and what an undo that cannot be is left as."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import basis, kernel, paths, retention, rollback, shutdown, situation
from engine.afterdigest import clock_offset_ns
from engine.boot import boot_id
from engine.errors import AcidError, Busy, JournalDamaged, WrongState, WrongTransaction
from engine.journal import Journal
from engine.model import Transaction
from engine.probes.base import NOTHING, Circumstances
from engine.probes.hostname import Hostname
from engine.records import LINK, Basic, DirectorySeen, Entry, EpochStarted, FileSystemSeen, Image, Keep, Sealed, UndoRun, Value
from engine.rollback import Manner
from engine.situation import Situation
from engine.store import Store
from engine.tracer import CAPTURE
from engine.undoing.ground import Outcome
from engine.undolog import Writer
from engine.verify import check
from engine.work import Work

ASKED = Manner("asked for")


@pytest.fixture
def state(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine's own directory, in place of the machine's."""
    place = sandbox / "acid"
    for name in ("tx", "store"):
        (place / name).mkdir(parents=True)
    for module in (rollback, retention):
        monkeypatch.setattr(module, "STATE", str(place))
    monkeypatch.setattr(paths.directory_of, "__defaults__", (str(place),))
    monkeypatch.setattr(Store.__init__, "__kwdefaults__", {**Store.__init__.__kwdefaults__, "state": str(place)})
    monkeypatch.setattr(rollback.reserve, "take_host", lambda _state: None)
    return place


@pytest.fixture
def journal(state: Path):
    made = Journal(str(state / "journal.db"))
    yield made
    made.close()


def begin(journal: Journal, *records: Image, boot: str = "", **options: object) -> Transaction:
    value = journal.begin(name="n", owner="o", options={"probes": [], **options}, boot_id=boot or boot_id(), engine="e")
    os.mkdir(paths.directory_of(value.id))
    log = Writer.create(paths.directory_of(value.id))
    for record in (EpochStarted(0, 0), EpochStarted(1, 1), *records):
        log.append(record)
    log.write_head(durable=True)
    log.close()
    return value


def committed(journal: Journal, *records: Image, **more: str) -> Transaction:
    return journal.set_state(begin(journal, *records, **more).id, "COMMITTED")


class Removed:
    """A step has removed `kept`, of which there is a link in the store, and made `born`."""

    def __init__(self, journal: Journal, folder: Path, **more: str) -> None:
        self.kept, self.born = folder / "kept", folder / "born"
        self.kept.write_text("one\n")
        value = begin(journal, **more)
        self.tx, store, reader = value.id, Store(value.id), kernel.Reader()
        seen = reader.stat(kernel.AT_FDCWD, os.fsencode(self.kept))
        fs = store.file_system(seen.dev)
        assert fs is not None
        handle, info = reader.handle(kernel.AT_FDCWD, os.fsencode(self.kept)), self.kept.stat()
        number = store.keep_link(fs, -1, b"", handle)
        self.link = folder / ".acid-store" / self.tx / str(number)
        basic = (info.st_mode, info.st_uid, info.st_gid, 0, info.st_size, info.st_atime_ns, info.st_mtime_ns)
        records: tuple[Image, ...] = (
            FileSystemSeen(fs.number, fs.dev, fs.fstype, fs.mount_point),
            DirectorySeen(1, fs.number, reader.handle(kernel.AT_FDCWD, os.fsencode(folder)), os.fsencode(folder)),
            Entry(1, 1, info.st_mode, fs.number, handle, b"kept"),
            Keep(1, fs.number, handle, LINK, number, b""),
            Basic(1, fs.number, handle, *basic, os.fsencode(self.kept)),
            Entry(1, 1, 0, fs.number, b"", b"born"),
        )
        self.append(*records)
        store.close()
        self.kept.unlink()
        self.born.write_text("two\n")

    def append(self, *records: Image) -> None:
        log = Writer.resume(paths.directory_of(self.tx))
        for record in records:
            log.append(record)
        log.write_head(durable=True)
        log.close()

    def put_back_by_an_undo_that_died(self) -> None:
        self.link.rename(self.kept)

    def is_back(self) -> bool:
        return self.kept.exists() and self.kept.read_text() == "one\n" and not self.born.exists()

    def is_untouched(self) -> bool:
        return not self.kept.exists() and self.born.read_text() == "two\n"


@pytest.fixture
def removed(journal: Journal, sandbox: Path) -> Iterator[Callable[..., Removed]]:
    """On a file system of its own: into the machine's, which the sandbox has mounted twice, no link leads."""
    folder = sandbox / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    yield lambda **more: Removed(journal, folder, **more)
    subprocess.run(["umount", str(folder)], check=True)


# What refuses it


def overtaken(journal: Journal) -> str:
    first = committed(journal, Value(1, b"/sys/x", b"1")).id
    committed(journal, Value(1, b"/sys/x", b"2"))
    return first


def beside_an_open_one(journal: Journal) -> str:
    first = committed(journal).id
    begin(journal)
    return first


def without_images(journal: Journal) -> str:
    first = committed(journal).id
    journal.drop_images(first)
    return first


REFUSED = {
    "a later one overlaps": (overtaken, WrongState, "came later and changed 1 of the same paths"),
    "another one is open": (beside_an_open_one, Busy, "state ACTIVE"),
    "its images are gone": (without_images, WrongState, "images .* are gone"),
    "unknown": (lambda _journal: "20200101-00000000", WrongTransaction, "20200101-00000000"),
    "truncated": (lambda journal: committed(journal).id[:8], WrongTransaction, "20"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_kills_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """What a committed transaction left running is a service by now, and an id that is cut short is many transactions' beginning."""
    make, kind, words = REFUSED[why]
    tx = make(journal)
    killed: list[str] = []
    monkeypatch.setattr(situation, "kill_leftovers", lambda _journal, tx: killed.append(tx))
    now = Situation(journal, Work())
    tracers = [types.SimpleNamespace(name=f"acid-{value.id}-1-1", mode=CAPTURE, step=1) for value in journal.transactions()]
    now.left_behind[:] = tracers
    states = [(value.id, value.state, value.images) for value in journal.transactions()]
    with pytest.raises(kind, match=words):
        now.end(tx, ASKED)
    assert killed == []
    assert {tracer.mode for tracer in tracers} <= {CAPTURE}
    assert [(value.id, value.state, value.images) for value in journal.transactions()] == states


def test_the_later_one_is_that_which_began_later_whatever_the_clock_says(state: Path) -> None:
    times = iter(range(10**18, 0, -(10**9)))
    journal = Journal(str(state / "set-back.db"), clock=lambda: next(times))
    first, second = (committed(journal, Value(1, b"/sys/x", b"v")) for _each in range(2))
    assert first.created_ns > second.created_ns
    with pytest.raises(WrongState, match=f"{second.id} came later"):
        rollback.refuse(journal, first.id)
    rollback.refuse(journal, second.id)
    journal.close()


# What an undo that cannot be is left as


def test_an_error_of_our_own_making_ends_the_undo(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stays ABORTING would be begun again for ever."""
    tx = begin(journal).id

    def fails(*_arguments: object, **_more: object) -> None:
        raise KeyError("of our own making")

    monkeypatch.setattr(rollback, "undo", fails)
    done = rollback.roll_back(journal, tx, ASKED)
    assert done.state == journal.get(tx).state == "UNDO_FAILED"
    assert done.differs == ("undo stopped: 'of our own making'",)


# What the store has lost (I7)


def test_a_kept_link_is_put_back(journal: Journal, removed: Callable[..., Removed]) -> None:
    """Else the tests below would show nothing."""
    found = removed()
    assert rollback.roll_back(journal, found.tx, ASKED).state == "ABORTED"
    assert found.is_back()


@pytest.mark.parametrize("end", ["", "COMMITTED"])
def test_a_kept_link_that_is_missing_refuses_the_undo(journal: Journal, removed: Callable[..., Removed], end: str) -> None:
    found = removed()
    if end:
        journal.set_state(found.tx, end)
    found.link.unlink()
    with pytest.raises(JournalDamaged, match=r"1 on .* is missing"):
        rollback.roll_back(journal, found.tx, ASKED)
    assert journal.get(found.tx).state == "UNDO_FAILED"
    assert found.is_untouched()
    done = rollback.roll_back(journal, found.tx, ASKED)
    assert done.state == "UNDO_FAILED" and not found.born.exists()
    assert any("kept: is gone, and there is no image of it" in sentence for sentence in done.differs), done


def test_what_lay_in_memory_that_was_made_anew_is_no_loss(journal: Journal, removed: Callable[..., Removed]) -> None:
    """/run after a planned reboot."""
    found = removed()
    folder = found.kept.parent
    subprocess.run(["umount", str(folder)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    assert rollback.roll_back(journal, found.tx, ASKED).state == "ABORTED"


def test_an_undo_that_ends_with_differences_lacks_nothing_in_a_later_boot(
    journal: Journal, removed: Callable[..., Removed], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = removed()
    journal.set_state(found.tx, "COMMITTED")
    with monkeypatch.context() as now:
        now.setattr(rollback, "undo", lambda *_arguments, **_more: Outcome(differs=["a test says so"]))
        assert rollback.roll_back(journal, found.tx, ASKED).state == "UNDO_FAILED"
    monkeypatch.setattr(shutdown, "boot_id", lambda: "the next")
    assert shutdown.was_clean(paths.directory_of(found.tx), journal.get(found.tx).boot_id)


def test_a_kept_link_that_was_moved_away_may_be_put_back(journal: Journal, removed: Callable[..., Removed]) -> None:
    found = removed()
    aside = found.link.rename(found.link.parents[1] / "aside")
    with pytest.raises(JournalDamaged, match=r"1 on .* is missing"):
        rollback.roll_back(journal, found.tx, ASKED)
    assert found.is_untouched()
    aside.rename(found.link)
    assert rollback.roll_back(journal, found.tx, ASKED).state == "ABORTED"
    assert found.is_back()


def test_a_kept_link_that_an_undo_has_put_back_is_no_loss(journal: Journal, removed: Callable[..., Removed]) -> None:
    found = removed()
    journal.set_state(found.tx, "ABORTING")
    found.put_back_by_an_undo_that_died()
    assert rollback.roll_back(journal, found.tx, ASKED).state == "ABORTED"
    assert found.is_back()


@pytest.mark.parametrize("end", ["ACTIVE", "DOOMED", "COMMITTED"])
def test_nor_is_one_that_an_undo_to_a_savepoint_has_put_back(journal: Journal, removed: Callable[..., Removed], end: str) -> None:
    """The agent died in it, and the next one goes on."""
    found = removed()
    found.append(UndoRun(1, 1, 0, 0))
    found.put_back_by_an_undo_that_died()
    journal.set_state(found.tx, end)
    if end == "COMMITTED":
        check(journal, journal.get(found.tx))
    assert rollback.roll_back(journal, found.tx, ASKED).state == "ABORTED"
    assert found.is_back()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_a_probe_keeps_is_looked_at_first(
    journal: Journal, removed: Callable[..., Removed], monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    found = removed(probes=["hostname"], durability=durability)
    journal.set_probe(found.tx, 0, "hostname", {"kept": "x"})
    monkeypatch.setattr(Hostname, "damage", lambda _probe, image: f"what lies beside {image['kept']} is damaged")
    with pytest.raises(JournalDamaged, match="what lies beside x is damaged") as raised:
        rollback.roll_back(journal, found.tx, ASKED)
    assert "Nothing was touched" in raised.value.hint
    assert journal.get(found.tx).state == "UNDO_FAILED"
    assert found.is_untouched()


@pytest.mark.parametrize("by", [0, -600, 600])
def test_where_the_clock_was_set_times_tell_nothing(
    journal: Journal, removed: Callable[..., Removed], monkeypatch: pytest.MonkeyPatch, by: int
) -> None:
    """What a unit did is known by the kernel's own clock, and what a step did by the one that people set."""
    found = removed(probes=["hostname"])
    journal.set_probe(found.tx, 0, "hostname", {})
    found.append(Sealed(1, time.time_ns(), clock_offset_ns() + by * 10**9))
    seen: list[Circumstances] = []
    monkeypatch.setattr(Hostname, "before_files", lambda _probe, _before, about: seen.append(about) or NOTHING)
    monkeypatch.setattr(Hostname, "after_files", lambda _probe, _before, _about: NOTHING)
    monkeypatch.setattr(Hostname, "compare", lambda _probe, _before, _now, _about: [])
    rollback.roll_back(journal, found.tx, ASKED)
    assert [bool(about.windows) for about in seen] == [by == 0]


def test_a_part_that_fails_before_the_first_path_ends_the_undo_too(
    journal: Journal, removed: Callable[..., Removed], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = removed()

    def fails(*_arguments: object, **_more: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(rollback.copies, "damaged", fails)
    monkeypatch.setattr(rollback.copies, "lost", fails)
    try:
        done = rollback.roll_back(journal, found.tx, ASKED)
    except (OSError, AcidError):
        pass
    else:
        assert done.differs
    assert journal.get(found.tx).state == "UNDO_FAILED"
    assert found.is_untouched()


# After a power cut


def test_an_undo_that_began_is_clean_for_its_own_boot_alone(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It syncs nothing before its end."""
    shutdown.mark(str(sandbox), "then")
    assert shutdown.was_clean(str(sandbox), "then")
    assert not shutdown.was_clean(str(sandbox), "another")
    shutdown.mark_undo(str(sandbox))
    assert shutdown.was_clean(str(sandbox), "then")
    monkeypatch.setattr(shutdown, "boot_id", lambda: "the next")
    assert not shutdown.was_clean(str(sandbox), "then")


@pytest.mark.parametrize("clean", [True, False])
def test_an_undo_of_what_a_clean_boot_left_lacks_nothing_when_it_is_gone_on_with(
    journal: Journal, removed: Callable[..., Removed], monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    """But in another boot again, what it had put back by then may be gone, and is looked for."""
    whatever = ASKED._replace(on_drift="force")  # its files were made in this boot, by somebody else as it seems
    found = removed(boot="an earlier one")
    if clean:
        shutdown.mark(paths.directory_of(found.tx), "an earlier one")

    def dies(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as now:
        now.setattr(rollback, "undo", dies)
        with pytest.raises(KeyboardInterrupt):
            rollback.roll_back(journal, found.tx, whatever)
    assert shutdown.was_clean(paths.directory_of(found.tx), "an earlier one") == clean
    with monkeypatch.context() as then:
        then.setattr(shutdown, "boot_id", lambda: "the next")
        assert not shutdown.was_clean(paths.directory_of(found.tx), "an earlier one")
    done = rollback.roll_back(journal, found.tx, whatever)
    assert (done.state == "ABORTED") == clean, done
    assert found.is_back()


def test_a_disk_without_room_for_the_last_mark_fails_no_undo(journal: Journal, removed: Callable[..., Removed], monkeypatch) -> None:
    """By then all is back. Another boot would say that something may be missing, no more."""
    play = removed()
    journal.set_state(play.tx, "COMMITTED")

    def full(*_arguments: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutdown, "mark", full)
    assert rollback.roll_back(journal, play.tx, ASKED).state == "ABORTED"
    assert play.is_back()


@pytest.mark.parametrize("committed_before", [True, False])
def test_an_undo_that_was_stopped_lacks_nothing_in_a_later_boot(
    journal: Journal, removed: Callable[..., Removed], monkeypatch: pytest.MonkeyPatch, committed_before: bool
) -> None:
    """What stopped it is mended, and the host was rebooted in good order: asked for again, it is exact."""
    found = removed()
    if committed_before:
        journal.set_state(found.tx, "COMMITTED")

    def stops(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as now:
        now.setattr(rollback, "undo", stops)
        assert rollback.roll_back(journal, found.tx, ASKED).state == "UNDO_FAILED"
    for module in (shutdown, basis, rollback):
        monkeypatch.setattr(module, "boot_id", lambda: "the next")
    done = rollback.roll_back(journal, found.tx, ASKED._replace(on_drift="force"))
    assert done.state == "ABORTED", done
    assert found.is_back()


def test_a_disk_that_fails_while_an_undo_is_stopped_makes_nothing_clean(
    journal: Journal, removed: Callable[..., Removed], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = removed()

    def fails(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(rollback, "undo", fails)
    monkeypatch.setattr(kernel, "syncfs", fails)
    assert rollback.roll_back(journal, found.tx, ASKED).state == "UNDO_FAILED"
    assert not shutdown.was_clean(paths.directory_of(found.tx), journal.get(found.tx).boot_id)


def test_what_a_probe_has_lost_refuses_once(journal: Journal, removed: Callable[..., Removed], monkeypatch: pytest.MonkeyPatch) -> None:
    found = removed(probes=["hostname"])
    journal.set_probes(found.tx, 0, {"hostname": Hostname().capture()})
    monkeypatch.setattr(Hostname, "damage", lambda _probe, _image: "something beside is missing")
    with pytest.raises(JournalDamaged, match="something beside is missing"):
        rollback.roll_back(journal, found.tx, ASKED)
    assert found.is_untouched()
    done = rollback.roll_back(journal, found.tx, ASKED)
    assert done.state == "UNDO_FAILED" and "something beside is missing" in done.differs
    assert found.is_back()


@pytest.mark.parametrize("end", ["COMMITTED", "ABORTING"])
@pytest.mark.parametrize(
    "damage",
    [
        # 'web1' becomes 'web0': one bit, and still JSON
        "UPDATE probe SET image = replace(image, 'web1', 'web0')",
        "UPDATE probe SET image = replace(image, '{', 'z')",
        "UPDATE probe SET epoch = 1",
        "UPDATE step SET started_ns = started_ns + 1073741824",
        "UPDATE note SET step = 3",
    ],
)
def test_a_bit_that_flipped_in_the_journal_refuses_the_undo(
    journal: Journal, removed: Callable[..., Removed], end: str, damage: str
) -> None:
    done = removed()
    tx = done.tx
    journal.add_step(tx, id="u1", task="t", module="m", position="p")
    journal.seal_step(tx, 1)
    journal.note(tx, "asked", "systemd", step=1)
    journal.set_probes(tx, 0, {"hostname": {"kernel": "web1", "domain": "(none)"}})
    journal.set_state(tx, end)
    check(journal, journal.get(tx))
    with sqlite3.connect(journal.path) as db:
        db.execute(damage)
    with pytest.raises(JournalDamaged, match="not what was written"):
        check(journal, journal.get(tx))
    with pytest.raises(JournalDamaged, match="not what was written"):
        rollback.roll_back(journal, tx, ASKED)
    assert not done.kept.exists() and done.born.exists(), "touched"
    assert journal.get(tx).state == "UNDO_FAILED"
    assert "not what was written" in journal.get(tx).reason
