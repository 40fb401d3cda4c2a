# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from acidlab.oracle import hashes
from acidlab.oracle.hashes import LARGE, Hashes


def digest_of(path: Path, known: Hashes, place: str = "disk") -> str:
    with open(path, "rb") as opened:
        return known.sha256(opened.fileno(), os.fstat(opened.fileno()), place)


def test_a_hash_is_remembered_only_for_a_settled_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    known = Hashes(tmp_path / "none")
    assert digest_of(file, known) == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    assert known.fresh == {}


def test_a_settled_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    monkeypatch.setattr(hashes, "SETTLED", -1)
    known = Hashes(tmp_path / "none")
    first = digest_of(file, known)
    assert len(known.fresh) == 1
    known._known.update(known.fresh)
    monkeypatch.setattr(hashes, "_digest", lambda _descriptor, _size: b"read again")
    assert digest_of(file, known) == first
    file.write_bytes(b"Content")
    assert digest_of(file, known) == b"read again".hex()


def test_nothing_is_remembered_where_inode_numbers_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    monkeypatch.setattr(hashes, "SETTLED", -1)
    known = Hashes(tmp_path / "none")
    digest_of(file, known, place="")
    assert known.fresh == {}


@pytest.mark.parametrize(("since", "is_shared"), [(1 << 63, True), (0, False)])
def test_what_a_clone_has_written_itself_is_known_of_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: int, is_shared: bool
) -> None:
    """Two that do the same in one tick may give a file the same number, size and times, and other contents."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    monkeypatch.setattr(hashes, "SETTLED", -1)
    known = Hashes(tmp_path / "none")
    known.of_clone("one", since)
    digest_of(file, known)
    known._known.update(known.fresh)
    monkeypatch.setattr(hashes, "_digest", lambda _descriptor, _size: b"read again")
    known.of_clone("another", since)
    assert (digest_of(file, known) != b"read again".hex()) == is_shared


def test_a_large_sparse_file_is_hashed_by_its_data(tmp_path: Path) -> None:
    known = Hashes(tmp_path / "none")
    sparse, filled, other = tmp_path / "sparse", tmp_path / "filled", tmp_path / "other"
    for path, at in ((sparse, 5_000_000), (filled, 5_000_000), (other, 5_000_001)):
        with open(path, "wb") as file:
            file.truncate(LARGE)
            file.seek(at)
            file.write(b"data")
    with open(filled, "r+b") as file:
        file.write(bytes(3 << 20))
    assert digest_of(sparse, known) == digest_of(filled, known) != digest_of(other, known)
    huge = tmp_path / "huge"
    with open(huge, "wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    digest_of(huge, known)
    assert time.monotonic() - started < 5
