# SPDX-License-Identifier: GPL-3.0-or-later
"""Store corruption: flips and cuts of every kind of byte of an open transaction's journal, its values, log, HEAD, copies; then a rollback.

Each is first shown to what an undo asks before it touches a path. What that lets pass is rolled back for real, on the disk as it was: the
tree is then as before, or the undo says that it is not, or refuses and has touched nothing.

A kept link is the user's own file under one more name. A byte of it that goes bad is his file's, and nobody could tell: not done here.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import sys
import tempfile
from typing import Any, NamedTuple

import acts
from faults import Fault, Faults
from small import Say, SmallHost
from tree import differences

BATCH = 250
CLASSES = ("log", "head", "journal.db", "journal.db-wal", "journal.head", "value", "copy")
TABLES = ("tx", "step", "savepoint", "compensation", "note", "probe", "fs")
#: of what was let pass, so many of a batch are rolled back for real: all of them, but for SQLite's unused bytes
REAL = 12


class Damage(NamedTuple):
    """Of the byte at `at`: which bits are turned; 0: the file is cut there."""

    kind: str
    path: str
    at: int
    bits: int

    def apply(self, path: str) -> None:
        if self.kind == "value":
            self._in_a_row(path)
            return
        with open(path, "r+b") as f:
            if not self.bits:
                f.truncate(self.at)
                return
            f.seek(self.at)
            byte = f.read(1)
            f.seek(self.at)
            f.write(bytes([byte[0] ^ self.bits]))

    def _in_a_row(self, path: str) -> None:
        """Where SQLite's own check sees nothing. `at` counts through the bytes of all values."""
        at = self.at
        for value in _values(path):
            if at < len(value.data):
                rest = bytes([value.data[at] ^ self.bits]) + value.data[at + 1 :] if self.bits else b""
                with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
                    column = f"UPDATE {value.table} SET {value.column} = CAST(? AS {value.kind}) WHERE {value.column} IS ?"
                    db.execute(column, (value.data[:at] + rest, value.was))
                return
            at -= len(value.data)


class Value(NamedTuple):
    """Of a row of the journal, as the digits or the text that it is told by."""

    table: str
    column: str
    kind: str
    was: Any
    data: bytes


def _values(path: str) -> list[Value]:
    """Of a copy: closing the database would take its write-ahead log away."""
    found = []
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(sqlite3.connect(_copied(path, folder))) as db:
        for table in TABLES:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "digest"]
            for column in columns:
                asked = f"SELECT DISTINCT typeof({column}), {column}, CAST({column} AS BLOB) FROM {table} WHERE {column} IS NOT NULL"
                found += [Value(table, column, *row) for row in db.execute(f"{asked} ORDER BY 3")]
    return found


def _copied(path: str, folder: str) -> str:
    for name in (path, path + "-wal"):
        if os.path.exists(name):
            shutil.copy(name, folder)
    return os.path.join(folder, os.path.basename(path))


class Prepared(NamedTuple):
    tx: str
    before: dict[str, Any]
    left: dict[str, Any]
    files: dict[str, list[tuple[str, int]]]


class Ask:
    """Shows each damage to the checks, on copies of the files."""

    def __init__(self, tx: str, damages: list[Damage]) -> None:
        self._tx, self._damages = tx, damages

    def __call__(self, say: Say) -> None:
        for number, damage in enumerate(self._damages):
            shutil.rmtree("/tmp/state", ignore_errors=True)
            os.makedirs("/tmp/state/tx", 0o700)
            for name in os.listdir("/var/lib/acid"):
                if name.startswith("journal.") and not name.endswith("-shm"):
                    shutil.copy(f"/var/lib/acid/{name}", "/tmp/state")
            shutil.copytree(f"/var/lib/acid/tx/{self._tx}", f"/tmp/state/tx/{self._tx}")
            if damage.kind != "copy":
                damage.apply(damage.path.replace("/var/lib/acid", "/tmp/state"))
                say(number=number, event="asked", refused=self._refused("/tmp/state"))
                continue
            with open(damage.path, "rb") as f:
                good = f.read()
            damage.apply(damage.path)
            say(number=number, event="asked", refused=self._refused("/tmp/state"))
            with open(damage.path, "wb") as f:
                f.write(good)
        say(event="end")

    def _refused(self, state: str) -> str:
        modules = sys.modules
        try:
            journal = modules["engine.journal"].Journal(state + "/journal.db")
            try:
                journal.verify()
                value = journal.open_transaction()
                if value is not None:
                    journal.verify_rows(value.id)
            finally:
                journal.close()
            if value is None or value.id != self._tx:
                return ""
            wanted = modules["engine.wanted"].read(f"{state}/tx/{self._tx}")
            modules["engine.copies"].verify(modules["engine.store"].Store(self._tx), wanted)
        except modules["engine.errors"].AcidError as error:
            return str(error)
        except Exception:
            return ""  # not a refusal: it is rolled back for real
        return ""


class Corruption:
    def __init__(self, host: SmallHost, faults: Faults) -> None:
        self._host, self._faults = host, faults

    def batch(self, seed: int) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """Counts, and what went wrong: BATCH damages to one transaction's store."""
        chosen = random.Random(seed)
        prepared = self._prepare(seed)
        damages = [self._draw(chosen, prepared.files) for _one in range(BATCH)]
        asked = self._host.boot(Ask(prepared.tx, damages), again=True, seconds=120)
        passed = [damages[event["number"]] for event in asked.events if event["event"] == "asked" and not event["refused"]]
        if asked.get("end") is None:
            return {"trials": 0}, [{"seed": seed, "problems": [f"asking stopped: {asked.errors[-1500:]}"]}]
        counts = {"trials": BATCH, "refused": BATCH - len(passed), "passed": len(passed)}
        wrong = []
        chosen.shuffle(passed)
        # SQLite's free bytes are most of what passes: the rest is all rolled back for real
        for damage in [one for one in passed if "journal" not in one.kind] + [one for one in passed if "journal" in one.kind][:REAL]:
            problem, outcome = self._roll_back(prepared, damage)
            counts["rolled back for real"] = counts.get("rolled back for real", 0) + 1
            counts[outcome] = counts.get(outcome, 0) + 1
            if problem:
                wrong.append({"seed": seed, "damage": damage, "problems": problem})
        return counts, wrong

    def _prepare(self, seed: int) -> Prepared:
        self._faults.arm(Fault())
        said = self._host.boot(acts.Transaction(self._faults, seed, "open/contents"))
        before, left, begun = said.get("before"), said.get("left"), said.get("begun")
        if before is None or left is None or begun is None:
            raise AssertionError(f"seed {seed}: goes wrong by itself: {said.events[-1:]} {said.errors}")
        self._host.keep()
        top, files = f"{self._host.root}/var/lib/acid", {}
        for kind in CLASSES[:-2]:
            path = f"{top}/tx/{begun['tx']}/{kind}" if kind in ("log", "head") else f"{top}/{kind}"
            if os.path.exists(path):
                files[kind] = [(path, _used(path))]
        store = f"{top}/store/{begun['tx']}"
        names = [name for name in (os.listdir(store) if os.path.isdir(store) else []) if name.startswith("c")]
        if names:
            files["copy"] = [(f"{store}/{name}", os.path.getsize(f"{store}/{name}")) for name in names]
        files["value"] = [(f"{top}/journal.db", sum(len(value.data) for value in _values(f"{top}/journal.db")))]
        return Prepared(begun["tx"], before["tree"], left["tree"], files)

    def _draw(self, chosen: random.Random, files: dict[str, list[tuple[str, int]]]) -> Damage:
        kind = chosen.choice(sorted(kind for kind in files if any(size for _path, size in files[kind])))
        path, size = chosen.choice([one for one in files[kind] if one[1]])
        bits = 0 if chosen.random() < 0.15 else chosen.choice((1 << chosen.randrange(8), chosen.randrange(1, 256)))
        return Damage(kind, path.removeprefix(str(self._host.root)), chosen.randrange(size), bits)

    def _roll_back(self, prepared: Prepared, damage: Damage) -> tuple[list[str], str]:
        """What is wrong, and what the undo made of it."""
        self._host.restore()
        damage.apply(f"{self._host.root}{damage.path}")
        recovered = self._host.boot(acts.Recovery(self._faults, boot=False), again=True).get("recovered")
        seen = self._host.boot(acts.look_only, again=True).get("tree")
        if recovered is None or seen is None:
            return ["it hung or died"], "hung"
        state = _state(recovered)
        to_before, to_left = differences(prepared.before, seen["tree"]), differences(prepared.left, seen["tree"])
        if not to_before:
            return [], "exact"
        if state == "UNDO_FAILED":
            return [], "inexact, and said so"
        if not to_left and recovered["code"]:
            return [], "refused then"
        return [f"{recovered['code']} {recovered['out'][-400:]}", *to_before[:4]], "silently wrong"


def _used(path: str) -> int:
    """Without the zeros that the log allocates ahead, but for some of them."""
    with open(path, "rb") as f:
        data = f.read()
    return min(len(data), len(data.rstrip(b"\0")) + 64)


def _state(recovered: dict[str, Any]) -> str:
    try:
        return str(json.loads(recovered["out"]).get("state", ""))
    except ValueError:
        return ""
