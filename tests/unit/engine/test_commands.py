# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import time

from engine import commands


def test_output_and_code() -> None:
    done = commands.run(["sh", "-c", "echo out; echo one >&2; echo two >&2; exit 3"], timeout=10)
    assert done == (3, "out\n", "one\ntwo\n")
    assert not done.ok
    assert done.complaint == "two"


def test_input_and_bytes_that_are_not_text() -> None:
    done = commands.run(["cat"], timeout=10, input="a\udcffb")
    assert os.fsencode(done.out) == b"a\xffb"


def test_environment_and_place_are_not_the_callers(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nonexistent")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    monkeypatch.chdir(tmp_path)
    done = commands.run(["sh", "-c", "pwd; env"], timeout=10)
    lines = done.out.splitlines()
    assert lines[0] == "/"
    assert "LC_ALL=C" in lines
    assert not any(line.startswith(("LD_PRELOAD", "LANG")) for line in lines)


def test_descriptors_are_not_inherited(tmp_path) -> None:
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        done = commands.run(["ls", "/proc/self/fd"], timeout=10)
        # 3 is ls's own, for the directory.
        assert set(done.out.split()) == {"0", "1", "2", "3"}


def test_a_program_that_is_missing_is_an_answer() -> None:
    done = commands.run(["no-such-program-here"], timeout=10)
    assert done.code == commands.MISSING
    assert "no-such-program-here" in done.complaint


def test_too_slow_ends_the_whole_session(tmp_path) -> None:
    mark = tmp_path / "pid"
    start = time.monotonic()
    done = commands.run(["sh", "-c", f"sleep 60 & echo $! > {mark}; wait"], timeout=2)
    assert done.code == commands.TOO_SLOW
    assert "2 seconds" in done.complaint
    assert time.monotonic() - start < 10
    child = int(mark.read_text())
    deadline = time.monotonic() + 5
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_complaint_falls_back_to_the_code() -> None:
    assert commands.run(["false"], timeout=10).complaint == "exit code 1"
