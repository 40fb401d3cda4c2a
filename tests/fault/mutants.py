# SPDX-License-Identifier: GPL-3.0-or-later
"""Safeguards of the engine, each taken away in a copy of it, and the layer that must notice.

A layer is a programme (sweep.py) that stops at the first trial that goes wrong, or a unit test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from programmes import TOP, Runner, engine_hash

SECONDS = 40.0


class Mutant(NamedTuple):
    """In `file` of the engine `old`, which is there once, becomes `new`. `layer`: "programme fs", or a unit test."""

    invariant: str
    name: str
    layer: str
    file: str
    old: str
    new: str

    def apply(self, engine: Path) -> None:
        path = engine / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"mutant '{self.name}': {text.count(self.old)} places in {self.file} to change")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


class Caught(NamedTuple):
    """`by`: the layer, with what it said first; empty: nobody noticed."""

    invariant: str
    name: str
    by: str


_CONTENT = "        self.log.append(Content(self.step, fs.number, handle, how, number, state.size, data))\n"

MUTANTS = (
    Mutant("I1", "no image of contents before a write in place", "random ext4", "trace/images.py", _CONTENT, ""),
    Mutant(
        "I1",
        "a call is let run before its records are on the disk",
        "order ext4",
        "tracer.py",
        "            lost = capturing and (self.mode != CAPTURE or not self._on_the_disk())\n",
        "            lost = False\n",
    ),
    Mutant("I1", "the undo log is never synced", "cut xfs", "undolog.py", "            os.fdatasync(self._fd)\n", "            pass\n"),
    Mutant("I1", "copies are not synced", "order ext4", "store.py", "                _to_disk(target, fs)\n", "                pass\n"),
    Mutant(
        "I1",
        "probes' images are not on the disk",
        "tests/unit/engine/test_transaction_end.py",
        "journal/probe_images.py",
        "        with self._write(decision=on_disk) as db:\n",
        "        with self._write() as db:\n",
    ),
    Mutant(
        "I2",
        "the latest image wins",
        "random ext4",
        "wanted.py",
        "        wanted.contents.setdefault(_key(record, keys), record)",
        "        wanted.contents[_key(record, keys)] = record",
    ),
    Mutant(
        "I2",
        "the log says that all is undone before it is",
        "kill ext4",
        "undo.py",
        "        try:\n            places, inodes = _restore(ground)\n",
        "        log.append(Undone(epoch, held.places, held.inodes))\n        try:\n            places, inodes = _restore(ground)\n",
    ),
    Mutant(
        "I2",
        "a place is not looked at before it is cleared",
        "random ext4",
        "undoing/places.py",
        "        is_wanted = (fs, handle) in wanted\n",
        "        is_wanted = False\n",
    ),
    Mutant(
        "I2",
        "a handle is used whatever it opens",
        "tests/unit/engine/test_identity.py",
        "filesystems.py",
        "        if not same:\n",
        "        if False:\n",
    ),
    Mutant(
        "I2",
        "a file system is known by its mount point and type",
        "tests/unit/engine/test_identity.py",
        "storedirs.py",
        "        if seen.identity is None:\n            return True\n",
        "        if seen.mount_point == found.mount_point:\n            return True\n",
    ),
    Mutant(
        "I2",
        "the reserve is not given to the undo",
        "full ext4",
        "reserve.py",
        "    with contextlib.suppress(FileNotFoundError), _opened(state) as fd:\n        release(fd)\n",
        "    pass\n",
    ),
    Mutant(
        "I2",
        "copies may take the space that steps have freed",
        "full ext4",
        "storeroom.py",
        "        if size > left:\n",
        "        if False:\n",
    ),
    Mutant(
        "I2",
        "a short write is believed",
        "tests/unit/engine/test_whole.py",
        "whole.py",
        "        rest, done = rest[taken:], done + taken\n",
        "        rest, done = rest[:0], done + taken\n",
    ),
    Mutant(
        "I2",
        "contents that were written are not read again",
        "tests/unit/engine/test_undo_errors.py",
        "undoing/inodes.py",
        "        self._each(contents, self._verify_contents)\n",
        "",
    ),
    Mutant(
        "I2",
        "one inode's error ends the rest",
        "tests/unit/engine/test_undo_errors.py",
        "undoing/inodes.py",
        "                ground.failed(ground.path_of(inode), error)\n",
        "                raise\n",
    ),
    Mutant(
        "I2",
        "one place's error ends the rest",
        "tests/unit/engine/test_undo_errors.py",
        "undoing/ground.py",
        "            self.failed(path, error, what)\n            return False\n",
        "            raise\n",
    ),
    Mutant(
        "I2",
        "something goes over what could not be staged",
        "tests/unit/engine/test_undo_errors.py",
        "undoing/places.py",
        "        wrong = self._each(wrong, lambda entry: self._clear(entry, wanted))\n",
        "        self._each(wrong, lambda entry: self._clear(entry, wanted))\n",
    ),
    Mutant(
        "I2",
        "a program that is being run loses a name",
        "tests/unit/engine/test_undo_errors.py",
        "undoing/busy.py",
        "    if len(found) + in_store < os.fstat(old).st_nlink:\n",
        "    if False:\n",
    ),
    Mutant(
        "I5",
        "who edits by rename makes the transaction's line his own",
        "tests/unit/engine/test_undo_errors.py",
        "undoing/inodes.py",
        "        if self._places.is_wanted(inode) or not self.is_replaced(inode):\n",
        "        if True:\n",
    ),
    Mutant(
        "I5",
        "a file system that is not mounted passes as exact",
        "tests/unit/engine/test_undo_errors.py",
        "undoing/ground.py",
        "            if self._went_with_its_files(seen):\n",
        "            if True:\n",
    ),
    Mutant(
        "I3",
        "a disk that failed once is asked again",
        "tests/unit/engine/test_transaction_end.py",
        "transaction.py",
        '            self._lost("what its steps did does not reach the disk: %s" % error)\n            raise Doomed(',
        "            raise Doomed(",
    ),
    Mutant(
        "I3",
        "the commit row is not durable",
        "cut ext4",
        "journal/transactions.py",
        "        with self._write(decision=on_disk) as db:\n            old = self.get(tx)",
        "        with self._write() as db:\n            old = self.get(tx)",
    ),
    Mutant(
        "I3",
        "no syncfs before the commit row",
        "cut xfs",
        "transaction.py",
        "                kernel.syncfs(fs.mount_fd)\n",
        "                pass\n",
    ),
    Mutant(
        "I3",
        "the commit row comes before all is imaged and synced",
        "cut xfs",
        "transaction.py",
        "        self.seal()\n        self._note_survivors()\n",
        "        self.journal.set_state(self.id, states.COMMITTED)\n        self.seal()\n        self._note_survivors()\n",
    ),
    Mutant(
        "I5",
        "drift is not looked for",
        "others ext4",
        "drift/judge.py",
        "        for inode, basic in self._wanted.basics.items():\n            if only",
        "        for inode, basic in ():\n            if only",
    ),
    Mutant(
        "I5",
        "drift is overwritten",
        "others ext4",
        "drift/decide.py",
        "        return ASIDE if self._policy == FORCE or case.finding.when == DURING else LEFT\n",
        "        return ASIDE\n",
    ),
    Mutant(
        "I5",
        "what a step finds is not compared with what the one before left",
        "tests/unit/engine/test_drift_between.py",
        "drift/judge.py",
        "        between.look(self._ground, self._ends, self._found, only)\n",
        "",
    ),
    Mutant(
        "I6",
        "a second transaction may begin",
        "tests/unit/engine/test_journal.py",
        "journal/transactions.py",
        "            self._refuse_second()\n            # No RETURNING",
        "            # No RETURNING",
    ),
    Mutant(
        "I6",
        "a stale token is let through",
        "tests/unit/engine/test_requests.py",
        "transaction.py",
        "        if token != self.token:\n",
        "        if False:\n",
    ),
    Mutant(
        "I2",
        "that an undo to a savepoint is under way is known in memory alone",
        "alone ext4",
        "transaction.py",
        "            self.journal.begin_rewind(self.id, point.epoch)\n",
        "",
    ),
    Mutant(
        "I3",
        "a commit in which the agent died is gone on with",
        "tests/unit/engine/test_rewinding.py",
        "recovery.py",
        "    if value.state == states.COMMITTING:\n",
        "    if False:\n",
    ),
    Mutant(
        "I6",
        "a log may have two owners",
        "tests/unit/engine/test_ownership.py",
        "ownership.py",
        "            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
    ),
    Mutant(
        "I5",
        "the password lock goes when its file is closed",
        "tests/unit/engine/test_drift_accounts.py",
        "filelocks.py",
        "            fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))\n",
        "            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
    ),
    Mutant(
        "I7",
        "the chain is not checked",
        "tests/unit/engine/test_undolog.py",
        "undolog.py",
        "if number != self.count or chain != rest[length:]:",
        "if False:",
    ),
    Mutant(
        "I7",
        "HEAD is not asked",
        "corrupt ext4",
        "undolog.py",
        "        head = self._head() if self._asks_head else Head(0, bytes(_CHAIN))\n",
        "        head = Head(0, bytes(_CHAIN))\n",
    ),
    Mutant(
        "I7",
        "copies are not verified",
        "corrupt ext4",
        "copies.py",
        'return "its contents are not what was stored" if image.data and now != image.data else ""',
        'return ""',
    ),
    Mutant(
        "I7",
        "the journal's rows are not verified",
        "tests/unit/engine/test_rollback.py",
        "basis.py",
        "    journal.verify_rows(tx)\n",
        "",
    ),
    Mutant(
        "I7",
        "kept links are not looked for",
        "tests/unit/engine/test_rollback.py",
        "copies.py",
        "        missing = lost(store, wanted)\n",
        "        missing: list[str] = []\n",
    ),
    Mutant(
        "I7",
        "the journal's head is not asked",
        "tests/unit/engine/test_journal.py",
        "journal/database.py",
        "        if head is not None and serial < head:\n",
        "        if False:\n",
    ),
    Mutant(
        "I8",
        "recovery leaves an open transaction alone",
        "kill ext4",
        "recovery.py",
        "    if value is None or value.state == states.PREPARED:\n        return None\n    kill_leftovers",
        "    if True:\n        return None\n    kill_leftovers",
    ),
    Mutant(
        "I8",
        "a torn step is gone on with by the next agent",
        "tests/unit/engine/test_recovery.py",
        "recovery.py",
        "    torn = value.state == states.ACTIVE and _torn(journal, value)\n",
        "    torn = False\n",
    ),
    Mutant(
        "I9",
        "kept links stay in the store after an undo",
        "random ext4",
        "undo.py",
        "        drop_images(ground, held.stored, whole=not epoch)\n",
        "        pass\n",
    ),
    Mutant(
        "I9",
        "what undo staged stays in the store",
        "random ext4",
        "undo.py",
        "            if not is_void and not name.startswith(_STAGED):\n",
        "            if not is_void:\n",
    ),
    Mutant(
        "I5",
        "what changed between two steps counts as a step's",
        "tests/unit/engine/test_probes_sightings.py",
        "probes/sightings.py",
        "            if by == NOBODY:\n",
        "            if False:\n",
    ),
)


def catch(mutant: Mutant, build: Path) -> Caught:
    with tempfile.TemporaryDirectory(dir=build) as folder:
        runner = Runner(Path(folder) / "mutant", mutant.apply)
        by = _unit_test(runner, mutant.layer) if mutant.layer.startswith("tests/") else _programme(runner, *mutant.layer.split())
    return Caught(mutant.invariant, mutant.name, by)


def _programme(runner: Runner, programme: str, fs: str) -> str:
    result = runner.run(programme, fs, seed=1, seconds=SECONDS, stop=True)
    return f"`{programme}` on {fs}, after {result.counts.get('trials', '?')} trials" if result.wrong else ""


def _unit_test(runner: Runner, test: str) -> str:
    path = f"pythonpath={runner.copy} .build/collections tests/lab tests/run"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-o", path, "-m", "not exact", test]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, env=environment, check=False)
    failed = [line.split(" - ")[0].split("::")[-1] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return f"`{test}::{failed[0]}`" if done.returncode == 1 and failed else ""


def save(build: Path, caught: list[Caught]) -> None:
    (build / "mutants.json").write_text(json.dumps({"engine": engine_hash(), "mutants": [one._asdict() for one in caught]}))
