# SPDX-License-Identifier: GPL-3.0-or-later
"""What services make for themselves in /var."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from engine.kernel import Reader
from engine.probes import servicedata
from engine.probes.base import Circumstances
from engine.probes.leavings import Alive

SECOND = 10**9
NOBODY = Alive(frozenset(), frozenset(), frozenset())


@pytest.fixture
def born(tmp_path: Path) -> Path:
    (tmp_path / "own" / "deep").mkdir(parents=True)
    (tmp_path / "own" / "deep" / "file").write_text("data")
    return tmp_path / "own"


def circumstances(tmp_path: Path, *, ago: int = 0, spared: frozenset[bytes] = frozenset()) -> Circumstances:
    at = time.time_ns() - ago * SECOND
    window = ((at - SECOND, at + SECOND),)
    return Circumstances(windows=window, asked=window, spared=spared, attic=str(tmp_path / "attic"))


def test_it_is_kept_and_told(born: Path, tmp_path: Path) -> None:
    outcome = servicedata.set_aside([str(born)], circumstances(tmp_path), in_use=lambda: NOBODY)
    assert not born.exists()
    (kept,) = (tmp_path / "attic").iterdir()
    assert kept.name.startswith("q-") and (kept / "deep" / "file").read_text() == "data"
    assert str(kept) in outcome.notes[0] and outcome.failures == ()


def test_what_was_born_while_no_step_had_asked_anybody_stays(born: Path, tmp_path: Path) -> None:
    assert servicedata.set_aside([str(born)], circumstances(tmp_path, ago=60), in_use=lambda: NOBODY) == servicedata.NOTHING
    assert born.exists()


def test_what_others_have_put_there_stays(born: Path, tmp_path: Path) -> None:
    spared = frozenset({os.fsencode(born / "deep" / "file")})
    servicedata.set_aside([str(born)], circumstances(tmp_path, spared=spared), in_use=lambda: NOBODY)
    assert born.exists()


def test_what_a_process_has_open_stays(born: Path, tmp_path: Path) -> None:
    info = Reader().stat(-100, os.fsencode(born / "deep" / "file"))
    used = Alive(frozenset({(info.dev, info.ino)}), frozenset(), frozenset())
    servicedata.set_aside([str(born)], circumstances(tmp_path), in_use=lambda: used)
    assert born.exists()


def test_what_cannot_be_moved_is_told(born: Path, tmp_path: Path) -> None:
    (tmp_path / "attic").write_text("no directory")
    outcome = servicedata.set_aside([str(born)], circumstances(tmp_path), in_use=lambda: NOBODY)
    assert born.exists() and "stays" in outcome.notes[0]
