# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written is written whole, or raises; nobody in the engine writes by himself."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import restore, whole

ENGINE = Path(whole.__file__).parent
#: their return value says how much was taken
PARTIAL = {"write", "pwrite", "writev", "pwritev", "sendfile", "splice"}


def partial_writes(text: str) -> Iterator[int]:
    """Lines with a call of os that may take a part, or with the write of a file that was opened without a buffer."""
    tree = ast.parse(text)
    raw = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
        and isinstance(item.optional_vars, ast.Name)
        and any(word.arg == "buffering" and ast.unparse(word.value) == "0" for word in item.context_expr.keywords)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            of_os = node.value.id == "os" and node.attr in PARTIAL
            if of_os or (node.value.id in raw and node.attr == "write"):
                yield node.lineno


def test_the_search_finds_what_it_is_for() -> None:
    raw, buffered = "with open(p, 'wb', buffering=0) as f:\n    f.write(b'')\n", "with open(p, 'wb') as g:\n    g.write(b'')\n"
    text = "os.write(1, b'x')\n" + raw + buffered + "os.pwrite\n"
    assert sorted(partial_writes(text)) == [1, 3, 6]


@pytest.mark.parametrize("path", sorted(ENGINE.rglob("*.py")), ids=lambda path: str(path.relative_to(ENGINE)))
def test_nobody_writes_by_himself(path: Path) -> None:
    if path.name != "whole.py":
        assert list(partial_writes(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("how", ["write", "write_at"])
def test_what_was_not_taken_is_offered_again(monkeypatch: pytest.MonkeyPatch, sandbox: Path, how: str) -> None:
    real_write, real_pwrite = os.write, os.pwrite
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:3]))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real_pwrite(fd, data[:3], at))
    fd = os.open(sandbox / "f", os.O_RDWR | os.O_CREAT)
    if how == "write":
        whole.write(fd, b"0123456789")
    else:
        whole.write_at(fd, b"0123456789", 5)
    assert os.pread(fd, 100, 0) == (b"" if how == "write" else bytes(5)) + b"0123456789"
    os.close(fd)


def test_a_write_of_nothing_does_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch, sandbox: Path) -> None:
    monkeypatch.setattr(os, "pwrite", lambda _fd, _data, _at: 0)
    fd = os.open(sandbox / "f", os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match="nothing was written"):
        whole.write_at(fd, b"x", 0)
    os.close(fd)


@pytest.fixture
def small(sandbox: Path) -> Iterator[Path]:
    place = sandbox / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("by", ["contents", "bytes"])
def test_a_full_file_system_is_an_error(sandbox: Path, small: Path, by: str) -> None:
    """It takes what fits, and says so by what pwrite returns."""
    data = os.urandom(300 << 10)
    (sandbox / "source").write_bytes(data)
    source, fd = os.open(sandbox / "source", os.O_RDONLY), os.open(small / "f", os.O_RDWR | os.O_CREAT)
    put = {"contents": lambda: restore.set_contents(fd, source, len(data)), "bytes": lambda: restore.set_bytes(fd, data)}[by]
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        put()
    os.close(fd)
    os.close(source)


def test_a_copy_that_is_too_short_is_an_error(sandbox: Path) -> None:
    """Not a file that ends in zeros."""
    (sandbox / "source").write_bytes(b"x" * 100)
    source, fd = os.open(sandbox / "source", os.O_RDONLY), os.open(sandbox / "f", os.O_RDWR | os.O_CREAT)
    with pytest.raises(OSError, match="shorter"):
        restore.set_contents(fd, source, 5000)
    os.close(fd)
    os.close(source)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (b"x" * 9000, b"x" * 9000, True),
        (b"x" * 9000, b"x" * 8999 + b"y", False),
        (b"x" * 9000, b"x" * 9001, False),
        (bytes(1 << 20) + b"z", None, True),
        (b"", b"", True),
        (bytes(9000), b"\0" * 4096 + b"y" + bytes(4903), False),
    ],
)
def test_contents_are_compared_by_their_bytes(sandbox: Path, one: bytes, two: bytes | None, same: bool) -> None:
    (sandbox / "one").write_bytes(one)
    if two is None:  # the same with a hole
        with open(sandbox / "two", "wb") as file:
            file.seek(1 << 20)
            file.write(b"z")
    else:
        (sandbox / "two").write_bytes(two)
    fds = [os.open(sandbox / name, os.O_RDONLY) for name in ("one", "two")]
    assert restore.same_contents(fds[1], fds[0], len(one)) is same
    for fd in fds:
        os.close(fd)
