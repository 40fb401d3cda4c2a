# SPDX-License-Identifier: GPL-3.0-or-later
"""What the log says was so at the start of an epoch: the earliest image wins, and what was undone is void."""

from __future__ import annotations

import struct
from pathlib import Path

from engine.records import (
    INLINE,
    LINK,
    Alias,
    Basic,
    Content,
    DirectorySeen,
    Dropped,
    Entry,
    EpochStarted,
    FileSystemSeen,
    Image,
    Keep,
    Undone,
    Value,
    Xattrs,
)
from engine.undolog import Writer
from engine.wanted import Wanted, read

HEAD: list[Image] = [FileSystemSeen(1, 5, b"ext4", b"/"), DirectorySeen(1, 1, b"etc!", b"/etc")]


def basic(handle: bytes, mode: int, step: int = 1) -> Basic:
    return Basic(step, 1, handle, mode, 0, 0, 0, 3, 10, 20, b"/etc/" + handle)


def entry(name: bytes, handle: bytes, step: int = 1) -> Entry:
    return Entry(step, 1, 0o100644 if handle else 0, 1, handle, name)


def wanted(folder: Path, records: list[Image], epoch: int = 0, until: int | None = None) -> Wanted:
    for name in ("log", "head"):
        (folder / name).unlink(missing_ok=True)
    writer = Writer.create(str(folder))
    for record in HEAD + records:
        writer.append(record)
    writer.write_head()
    writer.close()
    return read(str(folder), epoch=epoch, until=until)


def test_the_earliest_image_from_the_epoch_on_wins(sandbox: Path) -> None:
    records: list[Image] = [
        EpochStarted(1, 1),
        entry(b"a", b"inodeA"),
        basic(b"inodeA", 0o100600),
        EpochStarted(2, 2),
        entry(b"a", b"inodeB", 2),
        basic(b"inodeA", 0o100640, 2),
        entry(b"b", b"", 2),
        EpochStarted(3, 3),
        entry(b"a", b"", 3),
    ]
    for epoch, held in ((0, b"inodeA"), (1, b"inodeA"), (2, b"inodeB"), (3, b"")):
        assert wanted(sandbox, records, epoch).entries[1, b"a"].handle == held
    assert wanted(sandbox, records).basics[1, b"inodeA"].mode == 0o100600
    assert wanted(sandbox, records, 2).basics[1, b"inodeA"].mode == 0o100640
    assert (1, b"b") not in wanted(sandbox, records, 3).entries
    assert wanted(sandbox, records, 1, until=2).entries.keys() == {(1, b"a")}
    assert wanted(sandbox, records, 3).basics == {}


def test_what_was_undone_is_void_and_what_comes_after_counts(sandbox: Path) -> None:
    records: list[Image] = [
        EpochStarted(1, 1),
        entry(b"a", b"inodeA"),
        EpochStarted(2, 0),
        entry(b"a", b"inodeB", 2),
        entry(b"b", b"", 2),
        Value(2, b"/proc/sys/x", b"1"),
        Undone(2),
        EpochStarted(3, 0),
        EpochStarted(4, 3),
        entry(b"a", b"inodeC", 3),
    ]
    assert wanted(sandbox, records).entries[1, b"a"].handle == b"inodeA"
    later = wanted(sandbox, records, 2)
    assert later.entries[1, b"a"].handle == b"inodeC"
    assert (1, b"b") not in later.entries
    assert later.values == {}


def test_nothing_is_left_after_a_whole_undo(sandbox: Path) -> None:
    found = wanted(sandbox, [EpochStarted(1, 1), entry(b"a", b"inodeA"), basic(b"inodeA", 0o100600), Undone(0)])
    assert (found.entries, found.basics, found.paths()) == ({}, {}, [])


def test_an_image_for_a_call_that_failed_is_void(sandbox: Path) -> None:
    found = wanted(sandbox, [Keep(1, 1, b"inodeA", LINK, 7, b""), Dropped(1, b"inodeA", 7), Keep(1, 1, b"inodeA", LINK, 8, b"")])
    assert found.keeps[1, b"inodeA"].number == 8
    assert found.next_number == 9
    assert wanted(sandbox, [Keep(1, 1, b"inodeA", LINK, 7, b""), Dropped(1, b"inodeA", 7)]).keeps == {}


def test_images_of_an_inode_that_was_made_anew_are_images_of_one(sandbox: Path) -> None:
    """Undo to a savepoint made `inodeA` anew; a later image is of `inodeX`, and a whole undo asks for what has become of `inodeA`."""
    records: list[Image] = [
        EpochStarted(1, 1),
        entry(b"a", b"inodeA"),
        EpochStarted(2, 2),
        Keep(2, 1, b"inodeA", INLINE, 0, b"text"),
        Alias(1, b"inodeA", b"inodeX"),
        Undone(2),
        EpochStarted(3, 0),
        EpochStarted(4, 3),
        entry(b"b", b"inodeX", 3),
        Keep(3, 1, b"inodeX", INLINE, 0, b"text"),
        basic(b"inodeX", 0o100600, 3),
    ]
    found = wanted(sandbox, records)
    held = found.entries[1, b"a"]
    assert found.keeps[held.fs, held.handle].data == b"text"
    assert found.basics[held.fs, held.handle].mode == 0o100600
    assert found.inode(1, b"inodeA") == b"inodeX"


def test_a_directory_that_was_made_anew_is_one_directory(sandbox: Path) -> None:
    records: list[Image] = [
        EpochStarted(1, 1),
        entry(b"a", b""),
        EpochStarted(2, 2),
        Keep(2, 1, b"etc!", INLINE, 0, b""),
        Alias(1, b"etc!", b"etc2"),
        Undone(2),
        EpochStarted(3, 3),
        DirectorySeen(2, 1, b"etc2", b"/etc"),
        Entry(3, 2, 0o100644, 1, b"inodeA", b"a"),
        Entry(3, 2, 0, 1, b"", b"b"),
    ]
    assert {place: image.handle for place, image in wanted(sandbox, records).entries.items()} == {(1, b"a"): b"", (1, b"b"): b""}
    assert wanted(sandbox, records, 3).entries[1, b"a"].handle == b"inodeA"


def test_an_acl_fits_its_mode_also_over_epochs(sandbox: Path) -> None:
    """chmod in one epoch images the mode; chown in the next one images the ACL, which the chmod had changed."""

    def acl(owner: int, mask: int, other: int) -> bytes:
        entries = ((1, owner, -1), (2, 6, 5), (4, 4, -1), (16, mask, -1), (32, other, -1))
        return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *each) for each in entries)

    records: list[Image] = [
        EpochStarted(1, 1),
        basic(b"inodeA", 0o100664),
        EpochStarted(2, 2),
        Xattrs(2, 1, b"inodeA", ((b"system.posix_acl_access", acl(7, 7, 7)), (b"user.x", b"y"))),
    ]
    assert dict(wanted(sandbox, records).xattrs[1, b"inodeA"].pairs) == {b"system.posix_acl_access": acl(6, 6, 4), b"user.x": b"y"}
    assert dict(wanted(sandbox, records, 2).xattrs[1, b"inodeA"].pairs)[b"system.posix_acl_access"] == acl(7, 7, 7)


def test_paths_are_those_that_an_undo_looks_at(sandbox: Path) -> None:
    records: list[Image] = [
        entry(b"b", b"inodeB"),
        basic(b"inodeA", 0o100600),
        basic(b"folder", 0o040755),
        Content(1, 1, b"inodeA", INLINE, 0, 3, b"abc"),
        Value(1, b"/proc/sys/net/x", b"1"),
    ]
    assert wanted(sandbox, records).paths() == [b"/etc/b", b"/etc/inodeA", b"/proc/sys/net/x"]
