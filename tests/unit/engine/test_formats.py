# SPDX-License-Identifier: GPL-3.0-or-later
"""Which engine may undo what: the one that wrote it, or a later one that says it can."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine import formats, recovery
from engine.boot import boot_id
from engine.errors import FormatUnknown
from engine.journal import Journal
from engine.journal.schema import SCHEMA
from engine.records import EpochStarted
from engine.undolog import Reader, Writer


def log_of(folder: Path, number: int) -> str:
    folder.mkdir(exist_ok=True)
    writer = Writer.create(str(folder))
    writer.append(EpochStarted(0, 0))
    writer.write_head()
    writer.close()
    (folder / f"format-{formats.FORMAT}").rename(folder / f"format-{number}")
    return str(folder)


def test_what_this_engine_writes_it_can_undo(tmp_path: Path) -> None:
    directory = log_of(tmp_path / "tx", formats.FORMAT)
    formats.check(directory, tx="x", engine="x")
    assert len(list(Reader(directory))) == 1


def test_a_later_format_is_refused_by_name_and_nothing_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = log_of(tmp_path / "tx", 9)
    before = {path.name: path.read_bytes() for path in Path(directory).iterdir()}
    monkeypatch.setattr(formats, "LIBRARY", str(tmp_path / "lib"))
    with pytest.raises(FormatUnknown, match=r"20260101-aa.*engine feed.*format 9, and this engine can undo 1, 2") as raised:
        formats.check(directory, tx="20260101-aa", engine="feed")
    assert "is no more" in raised.value.hint
    (tmp_path / "lib" / "feed").mkdir(parents=True)
    (tmp_path / "lib" / "feed" / "acidctl").touch()
    with pytest.raises(FormatUnknown) as raised:
        formats.check(directory, tx="20260101-aa", engine="feed")
    assert f"run `{tmp_path}/lib/feed/acidctl rollback 20260101-aa`" in raised.value.hint
    with pytest.raises(FormatUnknown, match="format 9"):
        list(Reader(directory))
    assert {path.name: path.read_bytes() for path in Path(directory).iterdir()} == before


def test_a_new_schema_leaves_no_format_behind() -> None:
    """The two are pinned together: whoever changes one looks at the other, then here (docs/operations.md, "Another version's engine")."""
    pinned = {"schema": SCHEMA, "undoable": set(formats.UNDOABLE)}
    assert pinned == {"schema": 3, "undoable": {1, 2}}, (
        "An engine that raises the journal's schema must be able to undo each format of the log that was in use before it: no older engine "
        "opens its journal any more (schema-too-new), so nobody else could. Leave in UNDOABLE every format so far, then change this line."
    )
    assert formats.FORMAT in formats.UNDOABLE


def test_a_later_engine_undoes_the_formats_that_it_says_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = log_of(tmp_path / "tx", formats.FORMAT)
    monkeypatch.setattr(formats, "FORMAT", 9)
    monkeypatch.setattr(formats, "UNDOABLE", frozenset({*formats.UNDOABLE, 9}))
    formats.check(directory, tx="x", engine="x")
    assert len(list(Reader(directory))) == 1
    monkeypatch.setattr(formats, "UNDOABLE", frozenset({9}))
    with pytest.raises(FormatUnknown):
        formats.check(directory, tx="x", engine="x")


def test_a_log_without_a_number_is_of_the_first_format(tmp_path: Path) -> None:
    directory = log_of(tmp_path / "tx", formats.FORMAT)
    (Path(directory) / f"format-{formats.FORMAT}").unlink()
    assert formats.of(directory) == 1
    assert len(list(Reader(directory))) == 1


def test_an_agent_leaves_it_to_the_engine_that_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(tmp_path / "acid" / "journal.db"))
    value = journal.begin(name="x", owner="x", options={}, boot_id=boot_id(), engine="x")
    directory = log_of(tmp_path / "tx", 9)
    monkeypatch.setattr(recovery, "directory_of", lambda tx: directory)
    assert recovery.after_death(journal, value, step_was_running=True) == recovery.WAIT
    assert journal.get(value.id) == value
