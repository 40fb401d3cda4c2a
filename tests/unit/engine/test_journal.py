# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from engine import journal as module
from engine.errors import (
    Blocked,
    Busy,
    JournalDamaged,
    JournalUnwritable,
    SchemaTooNew,
    Usage,
    WrongState,
    WrongTransaction,
)
from engine.journal import Journal, digests
from engine.model import Compensation, FileSystem, StepSummary, Summary, Transaction

ENGINE = Path(module.__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "acid" / "journal.db")


@pytest.fixture
def journal(path: str):
    journal = Journal(path)
    yield journal
    journal.close()


def begin(journal: Journal, name: str = "upgrade", **more) -> Transaction:
    return journal.begin(name=name, owner="root@controller", options={"on_drift": "stop"}, boot_id="b1", engine="e1", **more)


def add_step(journal: Journal, tx: Transaction, id: str = "u1"):
    return journal.add_step(tx.id, id=id, task="Install", module="ansible.builtin.apt", position="site.yml:3")


def end(journal: Journal, tx: Transaction, *way: str) -> None:
    for state in way:
        journal.set_state(tx.id, state)


# Transactions


def test_begin_is_there_for_the_next_process(journal: Journal, path: str) -> None:
    tx = begin(journal, deadline=12.5)
    assert re.fullmatch(r"\d{8}-[0-9a-f]{8}", tx.id)
    other = Journal(path)
    assert other.get(tx.id) == other.open_transaction() == tx
    assert (tx.state, tx.token, tx.deadline, tx.options, tx.epoch, tx.images) == ("ACTIVE", 1, 12.5, {"on_drift": "stop"}, 0, True)


def test_only_root_can_read_it(journal: Journal, path: str) -> None:
    begin(journal)
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    files = sorted(os.listdir(os.path.dirname(path)))
    assert files == ["journal.db", "journal.db-shm", "journal.db-wal", "journal.head"]
    assert {stat.S_IMODE(os.stat(os.path.join(os.path.dirname(path), name)).st_mode) for name in files} == {0o600}


def test_a_second_begin_learns_who_holds_the_host_since_when(journal: Journal) -> None:
    tx = begin(journal, name="first")
    with pytest.raises(Busy, match=rf"{tx.id} \('first'\) of root@controller .* since \d{{4}}-\d\d-\d\d .* state ACTIVE") as raised:
        begin(journal)
    assert f"acidctl rollback {tx.id}" in raised.value.hint
    assert len(journal.transactions()) == 1


@pytest.mark.parametrize("way", [("WAITING_REBOOT",), ("DOOMED",), ("PREPARED",), ("ABORTING",)])
def test_every_open_state_holds_the_host(journal: Journal, way: tuple[str, ...]) -> None:
    end(journal, begin(journal), *way)
    with pytest.raises(Busy):
        begin(journal)


@pytest.mark.parametrize("way", [("COMMITTED",), ("ABORTING", "ABORTED"), ("ABORTING", "UNDO_FAILED", "RESOLVED")])
def test_an_ended_one_does_not(journal: Journal, way: tuple[str, ...]) -> None:
    first = begin(journal)
    end(journal, first, *way)
    second = begin(journal)
    assert second.token > first.token
    assert journal.get(first.id).ended_ns is not None
    assert journal.open_transaction() == second


def test_a_failed_undo_blocks_until_it_is_dealt_with(journal: Journal) -> None:
    tx = begin(journal)
    journal.set_state(tx.id, "ABORTING")
    journal.set_state(tx.id, "UNDO_FAILED", reason="/etc/motd differs")
    with pytest.raises(Blocked, match="/etc/motd differs"):
        begin(journal)
    journal.set_state(tx.id, "ABORTED")
    begin(journal)


def test_tokens_rise_even_when_transactions_are_forgotten(journal: Journal, path: str) -> None:
    end(journal, begin(journal), "COMMITTED")
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM tx")
    db.close()
    assert begin(journal).token == 2


def test_one_of_many_that_begin_at_once_wins(journal: Journal, path: str) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ENGINE)!r})\n"
        "from engine.journal import Journal\nfrom engine.errors import Busy\n"
        f"journal = Journal({path!r})\nsys.stdin.readline()\n"
        "try:\n    print(journal.begin(name='n', owner='o', options={}, boot_id='b', engine='e').id)\n"
        "except Busy:\n    print('busy')\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([sys.executable, "-c", program], **pipes) for _racer in range(6)]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert answers.count("busy") == 5
    assert [tx.id for tx in journal.transactions()] == [answer for answer in answers if answer != "busy"]


def test_illegal_moves_change_nothing(journal: Journal) -> None:
    tx = begin(journal)
    with pytest.raises(WrongState, match="from ACTIVE to ABORTED"):
        journal.set_state(tx.id, "ABORTED", reason="no")
    assert journal.get(tx.id) == tx


def test_a_move_to_where_it_is_changes_nothing(journal: Journal) -> None:
    tx = begin(journal)
    first = journal.set_state(tx.id, "COMMITTED", reason="one")
    assert journal.set_state(tx.id, "COMMITTED", reason="two") == first
    assert first.reason == "one"


def test_a_committed_one_cannot_be_undone_beside_an_open_one(journal: Journal) -> None:
    old = begin(journal)
    journal.set_state(old.id, "COMMITTED")
    new = begin(journal)
    with pytest.raises(Busy, match=new.id):
        journal.set_state(old.id, "ABORTING")
    journal.set_state(new.id, "COMMITTED")
    again = journal.set_state(old.id, "ABORTING")
    assert (again.state, again.ended_ns) == ("ABORTING", None)


def test_unknown_ids_are_named(journal: Journal) -> None:
    for call in (
        lambda: journal.get("nobody"),
        lambda: journal.set_state("nobody", "COMMITTED"),
        lambda: journal.set_deadline("nobody", 1.0),
        lambda: journal.next_epoch("nobody"),
        lambda: journal.add_savepoint("nobody", "s"),
    ):
        with pytest.raises(WrongTransaction, match="'nobody'"):
            call()


def test_deadline_boot_and_summary_are_kept(journal: Journal) -> None:
    tx = begin(journal)
    journal.go_on(tx.id, boot_id="b2", deadline=600.0)
    journal.set_deadline(tx.id, 99.25)
    step = StepSummary(1, "u1", "Install", "apt", "site.yml:3", "SEALED", 7)
    summary = Summary(tx.id, tx.name, "COMMITTED", (step,), 7, ("cron.service",), seconds=0.25, extra={"kept": 1})
    journal.set_summary(tx.id, summary)
    got = journal.get(tx.id)
    assert (got.deadline, got.boot_id) == (99.25, "b2")
    assert journal.summary(tx.id) == summary
    journal.set_deadline(tx.id, None)
    assert journal.get(tx.id).deadline is None


def test_retention_forgets_images_of_ended_ones_only(journal: Journal) -> None:
    tx = begin(journal)
    journal.set_probe(tx.id, 0, "systemd", {"units": {}})
    with pytest.raises(WrongState, match="ACTIVE"):
        journal.drop_images(tx.id)
    journal.set_state(tx.id, "COMMITTED")
    journal.drop_images(tx.id)
    assert journal.get(tx.id).images is False
    assert journal.probe(tx.id, "systemd") is None


# Steps, savepoints, notes, probes


def test_each_step_has_an_epoch_of_its_own(journal: Journal) -> None:
    tx = begin(journal)
    one = add_step(journal, tx)
    journal.seal_step(tx.id, 1)
    point = journal.add_savepoint(tx.id, "between")
    two = add_step(journal, tx, "u2")
    assert (one.n, two.n) == (1, 2)
    assert one.epoch < point.epoch < two.epoch == journal.get(tx.id).epoch
    assert [step.state for step in journal.steps(tx.id)] == ["SEALED", "STARTED"]
    assert journal.steps(tx.id)[0].sealed_ns is not None
    assert journal.savepoints(tx.id) == [point]


def test_the_newest_savepoint_of_a_name_hides_the_others_until_it_is_gone(journal: Journal) -> None:
    tx = begin(journal)
    old, between, new = (journal.add_savepoint(tx.id, name) for name in ("a", "b", "a"))
    assert journal.savepoints(tx.id) == [old, between, new]
    again = journal.renew_savepoint(tx.id, between)
    assert again.epoch > new.epoch
    assert journal.savepoints(tx.id) == [old, again]
    journal.renew_savepoint(tx.id, old)
    assert [point.name for point in journal.savepoints(tx.id)] == ["a"]


def test_the_same_id_is_the_same_step_until_it_is_sealed(journal: Journal) -> None:
    tx = begin(journal)
    assert add_step(journal, tx) == add_step(journal, tx)
    journal.seal_step(tx.id, 1)
    with pytest.raises(WrongState, match=r"Step 1 \('Install'\).*SEALED already"):
        add_step(journal, tx)
    assert len(journal.steps(tx.id)) == 1


@pytest.mark.parametrize("state", ["PREPARED", "DOOMED", "COMMITTED", "ABORTING", "WAITING_REBOOT"])
def test_no_step_starts_but_in_an_active_one(journal: Journal, state: str) -> None:
    tx = begin(journal)
    journal.set_state(tx.id, state)
    with pytest.raises(WrongState, match=f"is {state}: no step may start"):
        add_step(journal, tx)


def test_a_refused_step_takes_no_epoch(journal: Journal) -> None:
    tx = begin(journal)
    add_step(journal, tx)
    journal.seal_step(tx.id, 1)
    with pytest.raises(WrongState):
        add_step(journal, tx)
    assert journal.get(tx.id).epoch == 1


def test_step_states_are_checked(journal: Journal) -> None:
    tx = begin(journal)
    add_step(journal, tx)
    journal.set_step_state(tx.id, 1, "UNDONE")
    with pytest.raises(WrongState, match="from UNDONE to SEALED"):
        journal.seal_step(tx.id, 1)
    with pytest.raises(Usage, match="no step 2"):
        journal.seal_step(tx.id, 2)


def test_names_that_are_not_text_can_be_told(journal: Journal) -> None:
    tx = begin(journal)
    for _time in range(2):
        journal.note(tx.id, "asked", os.fsdecode(b"/run/caf\xe9"), step=1)
    assert [note.text for note in journal.notes(tx.id)] == ["/run/caf\\udce9"]
    assert journal.set_state(tx.id, "DOOMED", reason=os.fsdecode(b"\xff")).reason == "\\udcff"


def test_notes_are_told_once_and_in_order(journal: Journal) -> None:
    tx = begin(journal)
    journal.note(tx.id, "survivor", "sleep 1000 (pid 5)", step=2)
    journal.note(tx.id, "irreversible", "block device")
    journal.note(tx.id, "irreversible", "block device")
    assert [(note.kind, note.text, note.step) for note in journal.notes(tx.id)] == [
        ("survivor", "sleep 1000 (pid 5)", 2),
        ("irreversible", "block device", None),
    ]
    assert [note.text for note in journal.notes(tx.id, "survivor")] == ["sleep 1000 (pid 5)"]
    journal.drop_notes(tx.id, "survivor")
    assert [note.kind for note in journal.notes(tx.id)] == ["irreversible"]
    with pytest.raises(Usage, match="gossip"):
        journal.note(tx.id, "gossip", "x")


def test_the_earliest_image_of_a_probe_since_an_epoch(journal: Journal) -> None:
    tx = begin(journal)
    for epoch, value in ((0, "begin"), (3, "savepoint"), (5, "commit"), (3, "too late")):
        journal.set_probe(tx.id, epoch, "hostname", {"hostname": value})
    assert [journal.probe(tx.id, "hostname", epoch=epoch) for epoch in (0, 1, 3, 4, 6)] == [
        {"hostname": "begin"},
        {"hostname": "savepoint"},
        {"hostname": "savepoint"},
        {"hostname": "commit"},
        None,
    ]
    assert [epoch for epoch, _image in journal.probes(tx.id, "hostname")] == [0, 3, 5]


def test_file_systems_of_any_name(journal: Journal) -> None:
    tx = begin(journal)
    odd = FileSystem(b"/mnt/\xff\n", "ext4", b"/mnt/\xff\n/.acid-store/x")
    journal.add_fs(tx.id, odd)
    journal.add_fs(tx.id, odd)
    assert journal.file_systems(tx.id) == [odd]


def test_threads_share_one_journal(journal: Journal) -> None:
    tx = begin(journal)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                journal.next_epoch(tx.id)
                journal.note(tx.id, "survivor", f"{number}.{turn}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert journal.get(tx.id).epoch == 160
    assert len(journal.notes(tx.id)) == 160


# What may be wrong with it


def test_a_newer_schema_is_refused_and_left(journal: Journal, path: str) -> None:
    journal.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(SchemaTooNew, match="schema 99") as raised:
        Journal(path)
    assert "newer" in raised.value.hint


def test_not_a_database(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_bytes(b"this is not a database, though it is long enough to be read as one." * 20)
    with pytest.raises(JournalDamaged, match="not a database"):
        Journal(path)


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def many_notes(journal: Journal, tx: Transaction) -> None:
    for number in range(1000):
        journal.note(tx.id, "survivor", f"{number}" * 100)


def test_a_file_system_that_is_full(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], check=True)
    journal = Journal(str(place / "acid" / "journal.db"))
    tx = begin(journal)
    with pytest.raises(OSError, match="No space"):
        fill(place / "ballast")
    with pytest.raises(JournalUnwritable, match=r"cannot be written.*0 MiB") as raised:
        many_notes(journal, tx)
    assert "acidctl gc" in raised.value.hint or "df " in raised.value.hint
    # What was promised before still holds, and it goes on when there is room again.
    kept = len(journal.notes(tx.id))
    (place / "ballast").unlink()
    journal.note(tx.id, "survivor", "room again")
    assert len(journal.notes(tx.id)) == kept + 1
    journal.verify()


def test_a_file_system_that_is_read_only(tmp_path: Path) -> None:
    place = tmp_path / "fixed"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    journal = Journal(str(place / "acid" / "journal.db"))
    journal.close()
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    with pytest.raises(JournalUnwritable, match=str(place)) as raised:
        Journal(str(place / "acid" / "journal.db"))
    assert "findmnt" in raised.value.hint


def test_a_journal_that_lost_its_last_changes_is_refused(journal: Journal, path: str) -> None:
    """I7: SQLite itself takes a damaged WAL frame for the end of the log."""
    tx = begin(journal)
    size = os.path.getsize(f"{path}-wal")
    journal.set_state(tx.id, "COMMITTED")
    # As after a power cut: no orderly close, which would copy the log into the database.
    files = {name: Path(name).read_bytes() for name in (path, f"{path}-wal", path.replace(".db", ".head"))}
    journal.close()
    damaged = bytearray(files[f"{path}-wal"])
    damaged[size + 100] ^= 1
    for name, data in files.items():
        Path(name).write_bytes(data)
    Path(f"{path}-shm").unlink(missing_ok=True)
    Journal(path).close()
    for name, data in files.items():
        Path(name).write_bytes(data)
    Path(f"{path}-shm").unlink(missing_ok=True)
    Path(f"{path}-wal").write_bytes(damaged)
    with pytest.raises(JournalDamaged, match="the last ones are lost"):
        Journal(path)


@pytest.mark.parametrize(("content", "sentence"), [(None, "is missing"), (b"acid-journal-head 1 000", "not readable")])
def test_a_head_that_is_gone_or_torn_is_refused(journal: Journal, path: str, content: bytes | None, sentence: str) -> None:
    begin(journal)
    end(journal, journal.open_transaction(), "COMMITTED")
    journal.close()
    head = Path(path.replace(".db", ".head"))
    head.unlink()
    if content is not None:
        head.write_bytes(content)
    with pytest.raises(JournalDamaged, match=sentence):
        Journal(path)


def test_a_head_that_lags_is_fine(journal: Journal, path: str) -> None:
    tx = begin(journal)
    head = Path(path.replace(".db", ".head"))
    old = head.read_bytes()
    journal.set_state(tx.id, "COMMITTED")
    journal.close()
    head.write_bytes(old)
    assert Journal(path).get(tx.id).state == "COMMITTED"


def test_the_head_counts_only_what_is_synced(journal: Journal, path: str) -> None:
    """A step's row may be lost in a power cut (docs/adr/0002); a head that had counted it would make the rest look damaged."""
    tx = begin(journal)
    head = Path(path.replace(".db", ".head")).read_bytes()
    add_step(journal, tx)
    journal.seal_step(tx.id, 1)
    assert Path(path.replace(".db", ".head")).read_bytes() == head
    journal.set_state(tx.id, "COMMITTED")
    assert Path(path.replace(".db", ".head")).read_bytes() != head


def test_verify_finds_a_damaged_page(journal: Journal, path: str) -> None:
    tx = begin(journal)
    for number in range(200):
        journal.note(tx.id, "survivor", f"{number}" * 50)
    journal.close()
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4096] = b"\xff" * 4096
    Path(path).write_bytes(data)
    with pytest.raises(JournalDamaged, match="fails its checks"):
        Journal(path).verify()


def test_killed_between_two_calls_keeps_the_last(journal: Journal, path: str) -> None:
    program = (
        f"import os, signal, sys; sys.path.insert(0, {str(ENGINE)!r})\n"
        "from engine.journal import Journal\n"
        f"journal = Journal({path!r})\n"
        "tx = journal.begin(name='n', owner='o', options={}, boot_id='b', engine='e')\n"
        "journal.set_state(tx.id, 'PREPARED')\n"
        "journal._db.execute('BEGIN IMMEDIATE')\n"
        "journal._db.execute(\"UPDATE tx SET state = 'COMMITTED'\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert [tx.state for tx in journal.transactions()] == ["PREPARED"]


def test_a_journal_of_the_first_schema_is_taken_over(tmp_path: Path) -> None:
    """With its savepoints; what wrote it knows nothing of compensations."""
    path = str(tmp_path / "journal.db")
    old = Journal(path)
    tx = begin(old)
    old.close()
    with sqlite3.connect(path) as db:
        for table in ("tx", "step", "note", "probe", "fs"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN digest")
        db.executescript(
            "ALTER TABLE tx DROP COLUMN rewinding_to; DROP TABLE compensation; DROP TABLE savepoint;"
            "CREATE TABLE savepoint (tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE,"
            " name TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (tx, name)) WITHOUT ROWID;"
            f"INSERT INTO savepoint VALUES ('{tx.id}', 'old', 3); PRAGMA user_version = 1;"
        )
    db.close()
    journal = Journal(path)
    assert [(point.name, point.epoch) for point in journal.savepoints(tx.id)] == [("old", 3)]
    journal.add_savepoint(tx.id, "old")
    assert len(journal.savepoints(tx.id)) == 2
    assert record(journal, tx.id).state == "RECORDED"


# Compensations


def record(journal: Journal, tx: str, id: str = "c1") -> Compensation:
    return journal.add_compensation(tx, id=id, name="say sorry", step="u1", body="{}", host=[{"argv": ["true"]}], seconds=5)


def test_a_compensation_is_paid_once(journal: Journal) -> None:
    tx = begin(journal).id
    one = record(journal, tx)
    assert record(journal, tx) == one
    claimed = journal.claim_compensation(tx, "c1", by="me", attempts=1, until_ns=7)
    assert (claimed.state, claimed.claimed_by, claimed.host) == ("RUNNING", "me", ({"argv": ["true"]},))
    again = journal.claim_compensation(tx, "c1", by="you", attempts=1, until_ns=9)
    assert again.claim != claimed.claim
    journal.settle_compensation(tx, "c1", "PAID")
    for state in ("RUNNING", "FAILED", "OWED"):
        with pytest.raises(WrongState):
            journal.settle_compensation(tx, "c1", state)
    with pytest.raises(WrongState):
        journal.claim_compensation(tx, "c1", by="me", attempts=1, until_ns=7)


def test_a_compensation_needs_a_transaction_that_runs_steps(journal: Journal) -> None:
    tx = begin(journal).id
    journal.set_state(tx, "ABORTING")
    with pytest.raises(WrongState, match="ABORTING"):
        record(journal, tx)
    with pytest.raises(Usage, match="no compensation"):
        journal.settle_compensation(tx, "nothing", "PAID")


def test_the_end_of_retention_forgets_what_a_compensation_holds(journal: Journal) -> None:
    tx = begin(journal).id
    record(journal, tx)
    journal.end_compensated(tx, "c1", result='{"secret": 1}', host=[{"argv": ["undo"]}])
    journal.set_state(tx, "COMMITTED")
    journal.drop_images(tx)
    (left,) = journal.compensations(tx)
    assert (left.body, left.host, left.result, left.name) == ("", None, None, "say sorry")


def test_a_new_journal_has_its_head_before_the_first_decision(journal: Journal, path: str) -> None:
    """A power cut between the first decision and its head must not look like damage."""
    head = Path(path.replace(".db", ".head"))
    assert head.read_bytes()
    head.write_bytes(b"")  # its writer died
    Journal(path).close()
    assert head.read_bytes()


def test_a_begin_that_cannot_be_prepared_is_none(journal: Journal) -> None:
    def full(tx: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(JournalUnwritable):
        begin(journal, prepare=full)
    assert journal.transactions() == []
    made: list[str] = []
    tx = begin(journal, prepare=made.append)
    assert made == [tx.id]


def test_a_decision_within_what_is_none_is_refused(journal: Journal) -> None:
    """It would return before it is on the disk."""
    with pytest.raises(RuntimeError, match="decision"), journal._write(), journal._write(decision=True):
        pass
    with journal._write(decision=True), journal._write(decision=True):
        pass


def test_what_is_on_the_disk_is_a_decision_to_the_head(journal: Journal, path: str) -> None:
    """With `durability: power` a probe's image is there before PID 1 changes what it is of."""
    tx = begin(journal)
    head = Path(path.replace(".db", ".head"))
    for number, on_disk in enumerate((False, True)):
        before = head.read_bytes()
        journal.set_probes(tx.id, number, {"hostname": {"hostname": "x"}}, on_disk=on_disk)
        assert (head.read_bytes() != before) == on_disk
        assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == (2 if on_disk else 1)
    # A journal that lost it would be refused, as one that lost a commit is.
    journal._db.execute("UPDATE counter SET value = value - 1 WHERE name = 'serial'")
    with pytest.raises(JournalDamaged, match="the last ones are lost"):
        Journal(path)


def test_a_head_that_cannot_be_written_says_so_and_lags(journal: Journal, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails at a decision is not relied on, though the row itself is there: whoever asked hears so, and can roll back."""
    tx = begin(journal)
    head = Path(path.replace(".db", ".head"))
    before = head.read_bytes()

    def fails(_serial: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as now:
        now.setattr(journal._head, "write", fails)
        with pytest.raises(JournalUnwritable, match="Input/output error"):
            journal.set_state(tx.id, "COMMITTED")
    assert head.read_bytes() == before
    assert Journal(path).get(tx.id).state == "COMMITTED"
    journal.set_state(tx.id, "ABORTING")
    assert head.read_bytes() != before


ODD, STORED = os.fsdecode(b"caf\xe9"), "caf\\udce9"


def test_a_step_of_any_name_is_stored(journal: Journal) -> None:
    tx = begin(journal)
    step = journal.add_step(tx.id, id="u1", task=ODD, module=ODD, position=ODD)
    assert journal.steps(tx.id) == [step]
    assert (step.task, step.module, step.position) == (STORED, STORED, STORED)
    assert journal.add_step(tx.id, id="u1", task=ODD, module=ODD, position=ODD) == step


def test_a_compensation_of_any_name_is_stored(journal: Journal) -> None:
    tx = begin(journal).id
    found = journal.add_compensation(tx, id="c1", name=ODD, step=ODD, body=ODD, host=None, seconds=5)
    assert journal.compensations(tx) == [found]
    assert (found.name, found.step, found.body) == (STORED, STORED, STORED)
    journal.claim_compensation(tx, "c1", by="me", attempts=1, until_ns=7)
    assert journal.settle_compensation(tx, "c1", "FAILED", reason=ODD).reason == STORED


def test_without_its_images_no_committed_one_is_undone(journal: Journal) -> None:
    """By whoever asks: the retention may have ended since it was looked at."""
    tx = begin(journal)
    journal.set_state(tx.id, "COMMITTED")
    journal.drop_images(tx.id)
    for refused in (lambda: journal.set_state(tx.id, "ABORTING"), lambda: journal.refuse_undo(tx.id)):
        with pytest.raises(WrongState, match="its retention has ended"):
            refused()
    assert journal.get(tx.id).state == "COMMITTED"


# Each row has a digest (I7)

_PROBE = {"static": "web1", "zone": "UTC"}


def _filled(journal: Journal) -> Transaction:
    """A row of each kind."""
    tx = begin(journal)
    step = add_step(journal, tx)
    journal.seal_step(tx.id, step.n)
    journal.add_savepoint(tx.id, "s")
    journal.set_probes(tx.id, 0, {"hostname": _PROBE})
    journal.note(tx.id, "asked", "systemd", step=1)
    journal.add_fs(tx.id, FileSystem(b"/", "ext4", b"/store"))
    journal.add_compensation(tx.id, id="c", name="n", step="u1", body="b", host=[{"argv": ["x"]}], seconds=5)
    journal.set_summary(tx.id, Summary(tx.id, "n", "ACTIVE", (), 0))
    return tx


_PARTS = [
    (table, column, key)
    for table, key in digests.OF_A_TRANSACTION.items()
    for column in {
        "tx": ("state", "options", "boot_id", "created_ns", "epoch", "images", "reason", "summary", "token"),
        "step": ("epoch", "started_ns", "sealed_ns", "state", "n", "task"),
        "savepoint": ("epoch", "name"),
        "compensation": ("epoch", "body", "host", "state", "claim_until_ns"),
        "note": ("kind", "text", "step"),
        "probe": ("epoch", "name", "image"),
        "fs": ("mount_point", "store"),
    }[table]
]


@pytest.mark.parametrize(("table", "column", "key"), _PARTS)
def test_each_bit_of_what_an_undo_goes_by_is_verified(journal: Journal, path: str, table: str, column: str, key: str) -> None:
    tx = _filled(journal)
    journal.verify_rows(tx.id)
    journal.verify()
    journal.close()
    with sqlite3.connect(path) as db:
        (kind, value) = db.execute(f"SELECT typeof({column}), CAST({column} AS BLOB) FROM {table} WHERE {key} = ?", (tx.id,)).fetchone()
    wrong = []
    for bit in range(len(value) * 8 if kind in ("text", "blob") else 8):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        now = bytes(flipped) if kind in ("text", "blob") else int(value) ^ 1 << bit
        with sqlite3.connect(path) as db:
            cast = f"CAST(? AS {kind})"
            db.execute(f"UPDATE {table} SET {column} = {cast} WHERE {key} = ?", (now, tx.id))
        damaged = Journal(path)
        try:
            damaged.verify_rows(tx.id)
            wrong.append(bit)
        except JournalDamaged:
            pass
        finally:
            damaged.close()
        with sqlite3.connect(path) as db:
            back = value if kind in ("text", "blob") else int(value)
            db.execute(f"UPDATE {table} SET {column} = {cast} WHERE {key} = ?", (back, tx.id))
    assert not wrong
    again = Journal(path)
    again.verify_rows(tx.id)
    again.close()


def test_a_row_that_names_a_transaction_that_is_not_there_is_damage_too(journal: Journal, path: str) -> None:
    tx = _filled(journal)
    for table, key in digests.OF_A_TRANSACTION.items():
        with sqlite3.connect(path) as db:
            db.execute(f"UPDATE {table} SET {key} = replace({key}, '-', ',')")
        with pytest.raises(JournalDamaged):
            journal.verify() if table == "tx" else journal.verify_rows(tx.id)
        with sqlite3.connect(path) as db:
            db.execute(f"UPDATE {table} SET {key} = replace({key}, ',', '-')")
    journal.verify_rows(tx.id)


def test_a_damaged_row_is_neither_read_as_another_nor_written_over(journal: Journal, path: str) -> None:
    tx = _filled(journal)
    with sqlite3.connect(path) as db:
        db.execute('UPDATE tx SET options = \'{"on_drift":"stoq"}\'')
    with pytest.raises(JournalDamaged, match="not what was written"):
        journal.set_state(tx.id, "ABORTING")
    with pytest.raises(JournalDamaged, match="not what was written in tx"):
        journal.verify()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tx SET options = '{\"on_drift\"'")
    with pytest.raises(JournalDamaged, match="no JSON"):
        journal.get(tx.id)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tx SET options = CAST(x'ff22' AS TEXT)")
    for ask in (lambda: journal.get(tx.id), journal.transactions, lambda: journal.verify_rows(tx.id)):
        with pytest.raises(JournalDamaged):
            ask()


def test_rows_of_an_engine_without_digests_are_gone_by(journal: Journal, path: str) -> None:
    tx = _filled(journal)
    with sqlite3.connect(path) as db:
        for table in digests.OF_A_TRANSACTION:
            db.execute(f"UPDATE {table} SET digest = ''")
    journal.verify_rows(tx.id)
    journal.set_state(tx.id, "ABORTING")
    journal.verify_rows(tx.id)
    assert journal.probe(tx.id, "hostname") == _PROBE
