# SPDX-License-Identifier: GPL-3.0-or-later
"""A link that is kept for a call goes again when the call has failed, and only then, whatever others do to the inode's other names."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("traced_calls", Path(__file__).with_name("traced_calls.py"))
assert _spec is not None
assert _spec.loader is not None
traced_calls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traced_calls)
Traced = traced_calls.Traced

CWD = -100


@pytest.fixture
def place(sandbox: Path) -> Iterator[Path]:
    place = sandbox / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    (place / "large").write_text("precious\n" * 1000)
    (place / "other").write_text("other\n" * 1000)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_somebody_links_it_while_it_is_removed(sandbox: Path, place: Path) -> None:
    """The link count is as if the call had failed."""
    step = Traced(sandbox, place)
    words = step.sees("unlinkat", CWD, str(place / "large"), 0)
    os.link(place / "large", place / "somebody's")
    step.act(traced_calls._make, "unlinkat", words)
    step.sees("fchmodat", CWD, str(place / "other"), 0o600)  # the thread's next call
    (place / "somebody's").unlink()
    assert step.undo() == []
    assert (place / "large").stat().st_nlink == 1


def test_somebody_links_what_is_replaced(sandbox: Path, place: Path) -> None:
    step = Traced(sandbox, place)
    words = step.sees("renameat2", CWD, str(place / "other"), CWD, str(place / "large"), 0)
    os.link(place / "large", place / "somebody's")
    step.act(traced_calls._make, "renameat2", words)
    step.capture.settle()
    (place / "somebody's").unlink()
    assert step.undo() == []


def test_a_call_that_failed_leaves_no_link(sandbox: Path, place: Path) -> None:
    step = Traced(sandbox, place)
    step.sees("unlinkat", CWD, str(place / "large"), 0)
    assert (place / "large").stat().st_nlink == 2
    step.capture.settle()
    assert (place / "large").stat().st_nlink == 1
    assert step.undo() == []


def test_a_call_that_failed_though_its_directory_was_moved(sandbox: Path, place: Path) -> None:
    (place / "d").mkdir()
    (place / "large").rename(place / "d" / "large")
    step = Traced(sandbox, place)
    step.sees("unlinkat", CWD, str(place / "d" / "large"), 0)
    (place / "d").rename(place / "moved")
    step.capture.settle()
    assert (place / "moved" / "large").stat().st_nlink == 1
