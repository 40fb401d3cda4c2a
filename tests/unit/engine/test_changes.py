# SPDX-License-Identifier: GPL-3.0-or-later
"""What steps changed, from logs that are written here by hand, record by record, as the capture would, beside real files on a tmpfs."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from engine import history, net
from engine.changes import Change, Changes, others_may_read
from engine.cli import diff, list, log, show
from engine.errors import Usage, WrongState, WrongTransaction
from engine.journal import Journal
from engine.kernel import AT_FDCWD, Reader
from engine.model import StepSummary, Summary, Transaction
from engine.records import (
    COPY,
    INLINE,
    LINK,
    NOTHING,
    Basic,
    Content,
    DirectorySeen,
    Entry,
    EpochStarted,
    FileSystemSeen,
    Keep,
    Undone,
    Xattrs,
)
from engine.store import Store
from engine.timeline import Source, Timeline
from engine.undolog import Writer
from engine.wanted import read
from engine.xattrs import read_xattrs


class Recorder:
    """One transaction's log. Each method takes the image that must be there before the change; the test then makes the change itself."""

    def __init__(self, journal: Journal, place: Path, tx: Transaction) -> None:
        self.journal, self.tx, self.state = journal, tx, place / "state"
        self.directory = str(self.state / "tx" / tx.id)
        os.makedirs(self.directory)
        self.store = Store(tx.id, state=str(self.state))
        self.log = Writer.create(self.directory)
        self.reader = Reader()
        self.fs = self.store.file_system(self.reader.stat(AT_FDCWD, os.fsencode(place)).dev)
        self.log.append(FileSystemSeen(self.fs.number, self.fs.dev, self.fs.fstype, self.fs.mount_point))
        self.n = 0
        self.seen: dict[bytes, int] = {}

    def step(self, task: str, *, no_log: bool = False) -> int:
        if self.n:
            self.journal.seal_step(self.tx.id, self.n)
        step = self.journal.add_step(self.tx.id, id=task, task=task, module="m", position="site.yml:1", no_log=no_log)
        self.n = step.n
        self.log.append(EpochStarted(step.epoch, step.n))
        # The kernel stamps births with the time of its last tick.
        time.sleep(0.1)
        return step.n

    def _handle(self, path: Path) -> bytes:
        return self.reader.handle(AT_FDCWD, os.fsencode(path))

    def _directory(self, path: Path) -> int:
        handle = self._handle(path)
        if handle not in self.seen:
            self.seen[handle] = len(self.seen) + 1
            self.log.append(DirectorySeen(self.seen[handle], self.fs.number, handle, os.fsencode(path)))
        return self.seen[handle]

    def place(self, path: Path) -> None:
        held = path.is_symlink() or path.exists()
        mode, handle = (os.lstat(path).st_mode, self._handle(path)) if held else (0, b"")
        self.log.append(Entry(self.n, self._directory(path.parent), mode, self.fs.number, handle, os.fsencode(path.name)))

    def times(self, path: Path) -> None:
        found = os.lstat(path)
        self.log.append(
            Basic(
                self.n,
                self.fs.number,
                self._handle(path),
                found.st_mode,
                found.st_uid,
                found.st_gid,
                found.st_rdev,
                found.st_size,
                found.st_atime_ns,
                found.st_mtime_ns,
                os.fsencode(path),
            )
        )

    def metadata(self, path: Path) -> None:
        self.times(path)
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        self.log.append(Xattrs(self.n, self.fs.number, self._handle(path), read_xattrs(fd)))
        os.close(fd)

    def content(self, path: Path, how: int = INLINE) -> None:
        self.metadata(path)
        data, number = path.read_bytes(), 0
        if how == COPY:
            number = self.store.copy(self.fs, self._handle(path), len(data))
        self.log.append(Content(self.n, self.fs.number, self._handle(path), how, number, len(data), b"" if number else data))

    def keep(self, path: Path, how: int) -> None:
        handle, number, data = self._handle(path), 0, b""
        if how == LINK:
            number = self.store.keep_link(self.fs, -1, b"", handle)
        elif how == COPY:
            number = self.store.copy(self.fs, handle, path.stat().st_size)
        elif how == INLINE:
            data = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        if how != LINK:
            self.metadata(path)
        self.log.append(Keep(self.n, self.fs.number, handle, how, number, data))

    # What a step does, image first

    def create(self, path: Path, text: str) -> None:
        self.place(path)
        path.write_text(text)

    def remove(self, path: Path, how: int = INLINE) -> None:
        self.place(path)
        self.keep(path, how)
        path.rmdir() if how == NOTHING else path.unlink()

    def write(self, path: Path, text: str, how: int = INLINE) -> None:
        self.content(path, how)
        with open(path, "r+") as file:
            file.truncate()
            file.write(text)

    def replace(self, path: Path, text: str, how: int = INLINE) -> None:
        """Written beside and renamed over."""
        fresh = path.with_name("fresh")
        self.create(fresh, text)
        self.place(path)
        self.keep(path, how)
        fresh.rename(path)

    def rename(self, path: Path, target: Path) -> None:
        self.place(path)
        self.place(target)
        path.rename(target)

    def changes(self, first: int, last: int, *later: Recorder) -> dict[str, Change]:
        """By name below the test's folder."""
        since = 0 if first == last else self.journal.get(self.tx.id).created_ns

        def source(one: Recorder, epoch: int) -> Source:
            return Source.of(one.directory, Store(one.tx.id, state=str(self.state)), epoch=epoch)

        after = [source(one, 0) for one in later]
        touched = read(self.directory, epoch=first, until=last + 1)
        found = Changes(touched, Timeline([source(self, first), *after]), Timeline([source(self, last + 1), *after]), since_ns=since)
        return {os.path.relpath(os.fsdecode(change.path), self.state.parent / "data"): change for change in found}


@pytest.fixture
def place(sandbox: Path):
    """A file system with file handles that may be written to, and old files on it."""
    folder = sandbox / "fs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    (folder / "state").mkdir()
    (folder / "data").mkdir()
    return folder


@pytest.fixture
def data(place: Path) -> Path:
    data = place / "data"
    (data / "conf").write_text("one\ntwo\nthree\n")
    (data / "old").mkdir()
    (data / "old" / "inner").write_text("inside\n")
    (data / "link").symlink_to("conf")
    return data


@pytest.fixture
def journal(place: Path):
    journal = Journal(str(place / "state" / "journal.db"))
    yield journal
    journal.close()


@pytest.fixture
def step(journal: Journal, place: Path, data: Path) -> Recorder:
    time.sleep(0.1)
    return recorder(journal, place)


def recorder(journal: Journal, place: Path) -> Recorder:
    return Recorder(journal, place, journal.begin(name="demo", owner="me", options={}, boot_id="b", engine="e"))


def content(change: Change) -> tuple[bytes | None, bytes | None]:
    return tuple(None if side is None else side.data for side in (change.before, change.after))


@pytest.mark.parametrize("how", [INLINE, COPY])
def test_each_step_has_its_own_diff(step: Recorder, data: Path, how: int) -> None:
    step.step("first")
    step.write(data / "conf", "1\n", how)
    step.step("second")
    step.write(data / "conf", "2\n", how)
    step.step("third")
    step.replace(data / "conf", "3\n", how)
    old = b"one\ntwo\nthree\n"
    assert content(step.changes(1, 1)["conf"]) == (old, b"1\n")
    assert content(step.changes(2, 2)["conf"]) == (b"1\n", b"2\n")
    assert content(step.changes(3, 3)["conf"]) == (b"2\n", b"3\n")
    assert content(step.changes(0, 3)["conf"]) == (old, b"3\n")
    assert {name for epoch in (1, 2, 3) for name in step.changes(epoch, epoch)} == {"conf"}


@pytest.mark.parametrize("how", [INLINE, COPY, LINK])
def test_removed_files_are_still_known(step: Recorder, data: Path, how: int) -> None:
    step.step("remove")
    step.remove(data / "conf", how)
    (change,) = step.changes(1, 1).values()
    assert content(change) == (b"one\ntwo\nthree\n", None)
    assert change.before.size == 14


def test_created_and_removed_again_is_no_change(step: Recorder, data: Path) -> None:
    step.step("create")
    step.create(data / "new", "x")
    step.step("remove")
    step.remove(data / "new")
    assert content(step.changes(1, 1)["new"]) == (None, b"x")
    assert content(step.changes(2, 2)["new"]) == (b"x", None)
    assert step.changes(0, 2) == {}


def test_all_of_a_tree_that_was_born(step: Recorder, data: Path) -> None:
    step.step("create")
    step.place(data / "app")
    (data / "app" / "bin").mkdir(parents=True)
    (data / "app" / "bin" / "run").write_text("v1\n")
    step.step("change")
    step.write(data / "app" / "bin" / "run", "v2\n")
    step.create(data / "app" / "more", "m")
    step.place(data / "app" / "bin")
    step.step("remove")
    step.remove(data / "app" / "bin" / "run")
    step.remove(data / "app" / "bin", NOTHING)
    assert sorted(step.changes(1, 1)) == ["app", "app/bin", "app/bin/run"]
    assert content(step.changes(1, 1)["app/bin/run"]) == (None, b"v1\n")
    assert content(step.changes(2, 2)["app/bin/run"]) == (b"v1\n", b"v2\n")
    assert content(step.changes(3, 3)["app/bin/run"]) == (b"v2\n", None)
    assert sorted(step.changes(0, 3)) == ["app", "app/more"]
    assert all(change.before is None for change in step.changes(0, 3).values())


def test_a_directory_that_moved_is_one_change(step: Recorder, data: Path) -> None:
    step.step("move")
    step.rename(data / "old", data / "new")
    found = step.changes(1, 1)
    assert sorted(found) == ["new"]
    assert found["new"].moved_from == os.fsencode(data / "old")
    assert found["new"].before == found["new"].after
    step.step("edit")
    step.write(data / "new" / "inner", "changed\n")
    assert content(step.changes(2, 2)["new/inner"]) == (b"inside\n", b"changed\n")
    assert sorted(step.changes(0, 2)) == ["new", "new/inner"]
    assert content(step.changes(0, 2)["new/inner"]) == (b"inside\n", b"changed\n")


def test_a_symlink_turned_and_metadata(step: Recorder, data: Path) -> None:
    step.step("change")
    step.place(data / "link")
    step.keep(data / "link", INLINE)
    (data / "link").unlink()
    (data / "link").symlink_to("elsewhere")
    step.metadata(data / "conf")
    (data / "conf").chmod(0o600)
    os.chown(data / "conf", 7, 8)
    found = step.changes(1, 1)
    assert content(found["link"]) == (b"conf", b"elsewhere")
    assert (found["conf"].before.mode & 0o7777, found["conf"].after.mode & 0o7777) == (0o644, 0o600)
    assert (found["conf"].before.uid, found["conf"].after.gid) == (0, 8)


def test_touched_and_left_as_it_was_is_no_change(step: Recorder, data: Path) -> None:
    step.step("look")
    step.metadata(data / "conf")
    step.place(data / "nothing")
    step.times(data)
    assert step.changes(1, 1) == {}


def test_what_a_later_transaction_changed_is_its_own(step: Recorder, data: Path, journal: Journal, place: Path) -> None:
    step.step("edit")
    step.write(data / "conf", "first\n")
    step.create(data / "new", "made\n")
    journal.set_state(step.tx.id, "COMMITTED")
    later = recorder(journal, place)
    later.step("edit")
    later.write(data / "conf", "second\n")
    later.remove(data / "new")
    assert content(step.changes(1, 1, later)["conf"]) == (b"one\ntwo\nthree\n", b"first\n")
    assert content(step.changes(1, 1, later)["new"]) == (None, b"made\n")
    assert content(later.changes(1, 1)["conf"]) == (b"first\n", b"second\n")


def test_touched_paths_by_step(step: Recorder, data: Path) -> None:
    step.step("one")
    step.write(data / "conf", "x")
    step.times(data)
    step.step("two")
    step.remove(data / "link")
    assert history.touched(step.directory) == {1: [os.fsencode(data / "conf")], 2: [os.fsencode(data / "link")]}


def test_who_may_read(sandbox: Path, step: Recorder, data: Path) -> None:
    step.step("write")
    step.write(data / "conf", "x")
    change = step.changes(1, 1)["conf"]
    folder = Path("/etc/hostname")
    assert others_may_read(os.fsencode(folder), change.after)
    assert not others_may_read(os.fsencode("/root/x"), change.after) or os.stat("/root").st_mode & stat.S_IXOTH
    (data / "private").mkdir(mode=0o700)
    assert not others_may_read(os.fsencode(data / "private" / "gone" / "x"), change.after)


# The views


def views(journal: Journal, step: Recorder, n: int | None = None, **more) -> tuple[dict, str]:
    found = diff.collect(journal, step.tx.id, n, state_dir=str(step.state), **more)
    return found, diff.render(found)


@pytest.fixture
def readable(monkeypatch) -> None:
    """The sandbox lies where ordinary users may not look."""
    monkeypatch.setattr(diff, "others_may_read", lambda _path, side: side is None or bool(side.mode & stat.S_IROTH))


@pytest.mark.usefixtures("readable")
def test_a_diff_as_people_read_it(step: Recorder, data: Path, journal: Journal) -> None:
    step.step("edit")
    step.write(data / "conf", "one\n2\nthree")
    step.create(data / "new\n\x1b", "x\ty\n")
    _code, text = views(journal, step, 1)
    assert f"changed {data}/conf\n" in text
    assert "  size: 14 -> 11\n" in text
    assert " one\n-two\n-three\n+2\n+three\n\\ No newline at end of file\n" in text
    assert f"created {data}/new\\n\\x1b\n  file, 0644, 0:0, 4 bytes\n" in text
    assert "+x\ty\n" in text


@pytest.mark.usefixtures("readable")
def test_secrets_need_to_be_asked_for(step: Recorder, data: Path, journal: Journal) -> None:
    step.step("key")
    (data / "conf").chmod(0o600)
    step.write(data / "conf", "private\n")
    step.step("password", no_log=True)
    step.create(data / "public", "password\n")
    for number, why in ((1, "not everybody may read it"), (2, "a step with no_log touched it"), (None, "not everybody")):
        found, text = views(journal, step, number)
        assert why in text
        assert "password\n" not in text.replace("touched it", "")
        assert "private" not in text
        assert all(change["diff"] is None for change in found["changes"])
        assert "+password" in views(journal, step, number, secrets=True)[1] or number == 1
    assert "+private" in views(journal, step, secrets=True)[1]


@pytest.mark.usefixtures("readable")
def test_content_that_cannot_be_shown_says_why(step: Recorder, data: Path, journal: Journal) -> None:
    step.step("write")
    step.create(data / "binary", "a\0b")
    step.create(data / "large", "x" * ((1 << 20) + 1))
    step.create(data / "most", "x\n" * (1 << 19))
    reasons = {os.path.basename(change["path"]): change["hidden"] for change in views(journal, step, 1)[0]["changes"]}
    assert reasons == {"binary": "not text", "large": "larger than 1 MiB", "most": None}


@pytest.mark.usefixtures("readable")
def test_acl_and_flags_are_words(step: Recorder, data: Path, journal: Journal) -> None:
    step.step("acl")
    step.metadata(data / "conf")
    subprocess.run(["setfacl", "-m", "u:5:r", data / "conf"], check=True)
    assert "system.posix_acl_access=user::rw-,user:5:r--,group::r--,mask::r--,other::r--" in views(journal, step, 1)[1]


def test_a_diff_of_what_was_undone_names_the_paths(step: Recorder, data: Path, journal: Journal) -> None:
    step.step("create")
    step.create(data / "new", "x")
    (data / "new").unlink()
    step.log.append(Undone(0))
    for state in ("ABORTING", "ABORTED"):
        journal.set_state(step.tx.id, state)
    journal.set_step_state(step.tx.id, 1, "UNDONE")
    found, text = views(journal, step)
    assert (found["changes"], found["undone"]) == ([], [str(data / "new")])
    assert f"only the paths are known:\n  {data}/new\n" in text


def test_wrong_questions_get_sentences(step: Recorder, journal: Journal) -> None:
    step.step("one")
    with pytest.raises(Usage, match="no step 7"):
        views(journal, step, 7)
    with pytest.raises(WrongTransaction):
        diff.collect(journal, "nobody", state_dir=str(step.state))
    os.unlink(step.directory + "/log")
    with pytest.raises(WrongState, match="retention has ended"):
        views(journal, step)


def test_show_lists_steps_with_what_each_touched(step: Recorder, data: Path, journal: Journal) -> None:
    step.step("many files")
    for number in range(12):
        step.create(data / f"file{number:02}", "x")
    step.step("nothing")
    journal.note(step.tx.id, "irreversible", "a reload of the kernel", step=2)
    journal.note(step.tx.id, "survivor", "sleep 1000")
    found = show.collect(journal, step.tx.id, state_dir=str(step.state))
    assert (found["paths"], [one["paths"] for one in found["steps"]], len(found["steps"][0]["touched"])) == (12, [12, 0], 10)
    text = show.render(found)
    assert f"Transaction {step.tx.id}  ACTIVE  demo\n" in text
    assert "1     SEALED   12     m       site.yml:1  many files\n" in text
    assert f"  {data}/file09\n  and 2 more" in text
    assert "Cannot be undone:\n  a reload of the kernel (step 2)\n" in text
    assert "Still running:\n  sleep 1000\n" in text
    assert len(show.collect(journal, step.tx.id, state_dir=str(step.state), every_path=True)["steps"][0]["touched"]) == 12


def test_show_after_retention_tells_what_the_journal_keeps(step: Recorder, data: Path, journal: Journal) -> None:
    step.step("one")
    steps = (StepSummary(1, "one", "one", "m", "p", "SEALED", 5),)
    journal.set_summary(step.tx.id, Summary(step.tx.id, "demo", "COMMITTED", steps, 5, ("a.service",)))
    os.unlink(step.directory + "/log")
    text = show.render(show.collect(journal, step.tx.id, state_dir=str(step.state)))
    assert "5 paths" in text
    assert "Units brought back: a.service" in text


def test_list_and_log(step: Recorder, journal: Journal, place: Path) -> None:
    assert "demo" in list.render(list.collect(journal))
    step.step("first task")
    journal.set_state(step.tx.id, "COMMITTED", reason="all hosts agreed")
    second = recorder(journal, place)
    found = list.collect(journal)
    assert [(tx["tx"], tx["steps"]) for tx in found["transactions"]] == [(second.tx.id, 0), (step.tx.id, 1)]
    text = log.render(log.collect(journal, step.tx.id))
    assert [line.split()[2] for line in text.splitlines()[1:]] == ["begin", "step", "COMMITTED"]
    assert "1 started: first task (m, site.yml:1)" in text
    assert "all hosts agreed" in text


def test_an_empty_journal(journal: Journal) -> None:
    assert list.render(list.collect(journal)) == "The journal knows no transaction.\n"


def test_long_lists_are_cut_but_never_what_differs(step: Recorder, journal: Journal) -> None:
    for number in range(15):
        journal.note(step.tx.id, "moot", f"/gone/{number}")
        journal.note(step.tx.id, "differs", f"/differs/{number}")
    text = show.render(show.collect(journal, step.tx.id, state_dir=str(step.state)))
    assert "Passed over:\n" in text
    assert "  and 5 more\n" in text
    assert text.count("/differs/") == 15
    assert text.count("/gone/") == 10


# Net: what ends as it began is no change


def netted(step: Recorder, data: Path) -> dict[int, list[str]]:
    found = net.changed(read(step.directory), step.store)
    return {n: sorted(os.path.relpath(os.fsdecode(path), data) for path in paths) for n, paths in found.items()}


def test_what_was_made_and_removed_again_is_no_change(step: Recorder, data: Path) -> None:
    """Ansible's own payload files are such."""
    step.step("made")
    step.create(data / "payload", "code")
    step.place(data / "tmp")
    (data / "tmp").mkdir()
    (data / "tmp" / "born").write_text("x")  # no image: its directory was born in this step
    step.step("removed")
    step.remove(data / "payload")
    step.remove(data / "tmp" / "born")
    step.remove(data / "tmp", NOTHING)
    assert netted(step, data) == {}
    assert step.changes(1, 2) == {}


def test_what_was_written_and_put_back_is_none(step: Recorder, data: Path) -> None:
    step.step("write")
    step.write(data / "conf", "other\n")
    step.replace(data / "old" / "inner", "fresh\n")
    assert netted(step, data) == {1: ["conf", "old/inner"]}
    step.step("put back")
    step.write(data / "conf", "one\ntwo\nthree\n")
    step.replace(data / "old" / "inner", "inside\n")
    assert netted(step, data) == {}
    assert step.changes(1, 2) == {}
    assert step.changes(1, 1).keys() == step.changes(2, 2).keys() == {"conf", "old/inner"}


@pytest.mark.parametrize("how", [INLINE, LINK, COPY])
@pytest.mark.parametrize("text", ["inside\n", "INSIDE\n"])
def test_a_file_that_was_replaced_is_compared_with_the_one_before(step: Recorder, data: Path, how: int, text: str) -> None:
    step.step("replace")
    (data / "old" / "inner").chmod(0o600)
    step.place(data / "old" / "inner")
    step.keep(data / "old" / "inner", how)
    step.times(data / "old" / "inner") if how == LINK else None
    (data / "old" / "inner").unlink()
    (data / "old" / "inner").write_text(text)
    (data / "old" / "inner").chmod(0o600)
    expected = {} if text == "inside\n" else {1: ["old/inner"]}
    assert netted(step, data) == expected
    assert (set(step.changes(1, 1)) == {"old/inner"}) == bool(expected)
    (data / "old" / "inner").chmod(0o644)
    assert netted(step, data) == {1: ["old/inner"]}


def test_all_else_is_a_change(step: Recorder, data: Path) -> None:
    step.step("all")
    for name in ("mode", "touched", "away", "attribute", "content", "same"):
        (data / name).write_text("1\n")
    step.metadata(data / "mode")
    (data / "mode").chmod(0o600)
    step.metadata(data / "touched")
    os.utime(data / "touched", (1, 1))
    step.remove(data / "away")
    step.metadata(data / "attribute")
    subprocess.run(["setfacl", "-m", "u:5:r", data / "attribute"], check=True)
    step.write(data / "content", "2\n")
    step.write(data / "same", "1\n")
    step.create(data / "born", "")
    step.metadata(data / "old")
    (data / "old").chmod(0o700)
    step.remove(data / "link")
    (data / "link").symlink_to("elsewhere")
    assert netted(step, data) == {1: ["attribute", "away", "born", "content", "link", "mode", "old", "touched"]}


def test_what_was_moved_is_a_change_of_both_places_until_it_is_back(step: Recorder, data: Path) -> None:
    step.step("move")
    step.rename(data / "conf", data / "elsewhere")
    assert netted(step, data) == {1: ["conf", "elsewhere"]}
    step.rename(data / "elsewhere", data / "conf")
    assert netted(step, data) == {}


def test_beyond_what_is_compared_the_written_counts(step: Recorder, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "MOST_COMPARED", 0)
    step.step("write")
    step.write(data / "conf", "one\ntwo\nthree\n")
    assert netted(step, data) == {1: ["conf"]}


def test_show_counts_the_net_and_lists_the_rest_when_asked(step: Recorder, data: Path, journal: Journal) -> None:
    step.step("payload")
    step.create(data / "payload", "code")
    (data / "payload").unlink()
    step.create(data / "real", "x")
    found = show.collect(journal, step.tx.id, state_dir=str(step.state))
    assert (found["paths"], found["steps"][0]["paths"], found["steps"][0]["touched"]) == (1, 1, [str(data / "real")])
    found = show.collect(journal, step.tx.id, state_dir=str(step.state), every=True)
    assert (found["paths"], found["steps"][0]["touched"]) == (1, [str(data / "payload"), str(data / "real")])
