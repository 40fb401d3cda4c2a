# SPDX-License-Identifier: GPL-3.0-or-later
"""The undo log: every record comes back as it was; a torn tail is cut; any other damage is refused (I7)."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from engine import records
from engine.attributes import Attributes
from engine.errors import JournalDamaged, JournalUnwritable
from engine.identity import Identity
from engine.records import (
    Alias,
    Basic,
    Content,
    DirectorySeen,
    Dropped,
    Entry,
    EpochStarted,
    FileSystemSeen,
    Flags,
    Image,
    Keep,
    Left,
    LeftContent,
    LeftPlace,
    Sealed,
    Undone,
    UndoRun,
    Value,
    Xattrs,
)
from engine.undolog import Reader, Writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

U32, U64, I64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
FS, HANDLE, NAME, PATH = (
    st.integers(0, 65535),
    st.binary(min_size=4, max_size=132),
    st.binary(min_size=1, max_size=255),
    st.binary(max_size=5000),
)
HOW = st.integers(1, 4)
IDENTITY = st.builds(Identity, st.binary(max_size=40), st.binary(max_size=16), PATH, HANDLE, I64)
RECORDS = st.one_of(
    st.builds(FileSystemSeen, FS, U64, st.binary(max_size=40), PATH, st.none() | IDENTITY),
    st.builds(DirectorySeen, U32, FS, HANDLE, PATH),
    st.builds(EpochStarted, U32, U32),
    st.builds(Entry, U32, U32, U32, FS, HANDLE, NAME),
    st.builds(Keep, U32, FS, HANDLE, HOW, U64, st.binary(max_size=5000)),
    st.builds(Basic, U32, FS, HANDLE, U32, U32, U32, U32, U64, I64, I64, PATH),
    st.builds(Xattrs, U32, FS, HANDLE, st.lists(st.tuples(NAME, st.binary(max_size=300)), max_size=5).map(tuple)),
    st.builds(Flags, U32, FS, HANDLE, U32, st.none() | st.builds(Attributes, U32, U32, U32, U32)),
    st.builds(Content, U32, FS, HANDLE, HOW, U64, U64, st.binary(max_size=5000)),
    st.builds(Value, U32, st.binary(max_size=300), st.binary(max_size=5000)),
    st.builds(Dropped, FS, HANDLE, U64),
    st.builds(Alias, FS, HANDLE, HANDLE),
    st.builds(Undone, U32, st.just(()), st.just(())),
    st.builds(Undone, U32, st.lists(st.tuples(U32, NAME)).map(tuple), st.lists(st.tuples(FS, HANDLE)).map(tuple)),
    st.builds(Left, U32, st.lists(st.builds(LeftPlace, U32, U64, U64, NAME), max_size=5).map(tuple)),
    st.builds(LeftContent, U32, st.binary(max_size=300), st.binary(max_size=5000)),
    st.builds(Sealed, U32, I64, I64),
    st.builds(UndoRun, U32, I64, I64, I64),
)


def written(folder: Path, records: list[Image]) -> Path:
    writer = Writer.create(str(folder))
    for record in records:
        writer.append(record)
    writer.write_head()
    writer.close()
    return folder


def read(folder: Path) -> list[Image]:
    return list(Reader(str(folder)))


SOME: list[Image] = [EpochStarted(0, 0), FileSystemSeen(1, 259 << 32, b"ext4", b"/"), DirectorySeen(1, 1, b"dir-handle", b"/etc")] + [
    Entry(1, 1, 0o100644, 1, b"handle%d" % number, b"name%d" % number) for number in range(20)
]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, database=None)
@given(RECORDS)
def test_a_record_comes_back_as_it_was(record: Image) -> None:
    kind, payload = records.encode(record)
    assert records.decode(kind, payload) == record


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, database=None)
@given(st.lists(RECORDS, max_size=12))
def test_a_log_comes_back_as_it_was(sandbox: Path, records: list[Image]) -> None:
    assert read(written(Path(tempfile.mkdtemp(dir=sandbox)), records)) == records


def test_a_kind_of_a_later_engine_is_refused() -> None:
    with pytest.raises(JournalDamaged, match="unknown kind 99"):
        records.decode(99, b"")


def test_a_tail_torn_at_any_byte_is_cut_and_written_on(sandbox: Path) -> None:
    """The writer died in a write: HEAD is older, so nothing that it vouches for is missing."""
    folder = written(sandbox, SOME)
    log = folder / "log"
    good = log.read_bytes()
    writer = Writer.resume(str(folder))
    writer.append(Undone(7))
    writer.close()
    whole = log.read_bytes()
    for cut in range(len(good), len(whole)):
        log.write_bytes(whole[:cut])
        assert read(folder) == SOME
        writer = Writer.resume(str(folder))
        writer.append(Undone(9))
        writer.close()
        assert read(folder) == [*SOME, Undone(9)]


def test_a_frame_half_copied_is_cut_and_written_on(sandbox: Path) -> None:
    """The writer died while it copied a frame into memory: its length is marked, and any of the frame's bytes may be there or not."""
    folder = written(sandbox, SOME)
    log = folder / "log"
    good = log.read_bytes()
    record = Value(1, b"/proc/sys/kernel/x", b"v" * 40)
    kind, payload = records.encode(record)
    marked = (len(payload) | 1 << 31).to_bytes(4, "little")
    frame = marked + len(SOME).to_bytes(8, "little") + bytes((kind,)) + payload + b"c" * 16
    for copied in range(4, len(frame) + 1):
        for half in (frame[:copied], marked + bytes(len(frame) - copied) + frame[4 + len(frame) - copied :]):
            log.write_bytes(good + half + bytes(200))
            assert read(folder) == SOME
            writer = Writer.resume(str(folder))
            writer.append(record)
            writer.close()
            assert read(folder) == [*SOME, record]
    log.write_bytes(good + frame + b"x")
    with pytest.raises(JournalDamaged, match="record 23 is damaged"):
        read(folder)


def test_what_is_allocated_and_not_used_is_no_record_and_is_given_back(sandbox: Path) -> None:
    folder = written(sandbox, SOME)
    log = folder / "log"
    size = log.stat().st_size
    writer = Writer.resume(str(folder))
    writer.append(Undone(7))
    assert log.stat().st_size > size + 10_000
    assert read(folder) == [*SOME, Undone(7)]
    writer.close()
    assert log.stat().st_size < size + 100
    log.write_bytes(log.read_bytes() + bytes(5000) + b"x")
    with pytest.raises(JournalDamaged, match="record 24 is damaged"):
        read(folder)


def test_frames_longer_than_the_window_and_across_its_end(sandbox: Path) -> None:
    records: list[Image] = [Value(number, b"/sys/x", os.urandom(1 + number * 7919 % 90_000)) for number in range(40)]
    records.insert(20, Value(0, b"/sys/y", bytes(700_000)))
    assert read(written(sandbox, records)) == records


def test_a_killed_writer_has_written_all_that_it_said(sandbox: Path) -> None:
    """SIGKILL at 40 moments: no acknowledged record is missing, and the next writer goes on."""
    for round_ in range(40):
        folder = sandbox / str(round_)
        folder.mkdir()
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            writer = Writer.create(str(folder))
            while True:
                writer.append(Value(writer.count, b"/sys/x", b"v" * (writer.count % 900)))
                os.write(send, b".")
        os.close(send)
        acknowledged = 0
        while acknowledged < 50 + 97 * round_:
            acknowledged += len(os.read(receive, 64))
        os.kill(child, 9)
        os.waitpid(child, 0)
        while said := os.read(receive, 65536):
            acknowledged += len(said)
        os.close(receive)
        found = read(folder)
        assert acknowledged <= len(found) <= acknowledged + 1
        assert [record.step for record in found if isinstance(record, Value)] == list(range(len(found)))
        Writer.resume(str(folder)).close()
        assert read(folder) == found


def test_a_flipped_bit_is_refused_wherever_it_is(sandbox: Path) -> None:
    folder = written(sandbox, SOME)
    log = folder / "log"
    good = log.read_bytes()
    for at in range(0, len(good), 3):
        log.write_bytes(good[:at] + bytes((good[at] ^ (1 << at % 8),)) + good[at + 1 :])
        with pytest.raises(JournalDamaged):
            read(folder)
        with pytest.raises(JournalDamaged):
            Writer.resume(str(folder))
    log.write_bytes(good)
    assert read(folder) == SOME


def test_a_lost_or_doubled_or_swapped_record_is_refused(sandbox: Path) -> None:
    folder = written(sandbox, SOME)
    log = folder / "log"
    good = log.read_bytes()
    frames, at = [], 0
    while at < len(good):
        size = 13 + int.from_bytes(good[at : at + 4], "little") + 16
        frames.append(good[at : at + size])
        at += size
    assert len(frames) == len(SOME)
    for wrong in (
        frames[:5] + frames[6:],
        frames[:5] + frames[4:],
        frames[:5] + [frames[6], frames[5]] + frames[7:],
        frames[1:],
        frames[:-1],
        [],
    ):
        log.write_bytes(b"".join(wrong))
        with pytest.raises(JournalDamaged):
            read(folder)


@pytest.mark.parametrize("content", [None, b"", b"acidlog1", b"x" * 32, b"acidlog2" + bytes(24)])
def test_a_head_that_is_missing_or_damaged_is_refused(sandbox: Path, content: bytes | None) -> None:
    folder = written(sandbox, SOME)
    head = folder / "head"
    head.unlink()
    if content is not None:
        head.write_bytes(content)
    with pytest.raises(JournalDamaged, match="head") as raised:
        read(folder)
    assert "Nothing was touched" in raised.value.hint


def test_a_head_beyond_the_log_is_refused(sandbox: Path) -> None:
    """The log was put back to an older state than HEAD knows of."""
    folder = written(sandbox, SOME)
    older = (folder / "log").read_bytes()
    writer = Writer.resume(str(folder))
    writer.append(Undone(3))
    writer.write_head(durable=True)
    writer.close()
    (folder / "log").write_bytes(older)
    with pytest.raises(JournalDamaged, match=r"23 records, but HEAD says 24"):
        read(folder)


def test_another_transactions_log_is_refused(sandbox: Path) -> None:
    """Whole by itself, but HEAD knows another chain."""
    one, other = sandbox / "one", sandbox / "other"
    for folder in (one, other):
        folder.mkdir()
    written(one, SOME)
    written(other, [*SOME[:-1], Undone(1)])
    (one / "log").write_bytes((other / "log").read_bytes())
    with pytest.raises(JournalDamaged, match="does not match HEAD"):
        read(one)


def test_a_full_disk_leaves_no_half_record(sandbox: Path) -> None:
    """RLIMIT_FSIZE in a child stands for a full disk: the append raises, and what was there reads as before."""
    folder = written(sandbox, SOME)
    size = (folder / "log").stat().st_size
    child = os.fork()
    if child == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        writer = Writer.resume(str(folder))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
        try:
            writer.append(Value(1, b"/proc/sys/kernel/x", b"v" * 100))
        except JournalUnwritable as error:
            os._exit(0 if "no space for" in str(error) or "too large" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (folder / "log").stat().st_size == size
    assert read(folder) == SOME


def test_a_log_that_did_not_reach_the_disk_once_never_says_it_did(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells the error once, and drops what it could not write."""
    asked = []

    def fails(fd: int) -> None:
        asked.append(fd)
        if len(asked) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    writer = Writer.create(str(sandbox))
    for number in range(3):
        writer.append(Undone(number))
        with pytest.raises(JournalUnwritable, match="does not reach the disk: Input/output error"):
            writer.sync()
        with pytest.raises(JournalUnwritable):
            writer.write_head(durable=True)
    assert len(asked) == 1
    writer.close()
