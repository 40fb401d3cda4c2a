# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab hands to ssh as stdin is not shared with whoever started the lab: ssh makes it non-blocking."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LAB = Path(__file__).resolve().parents[2] / "lab"

# Stands for ssh: makes its stdin non-blocking, and reads it.
LIKE_SSH = """
import os, sys
sys.path.insert(0, sys.argv[1])
from acidlab.ssh import stdin_of_its_own
stdin_of_its_own()
os.set_blocking(0, False)
print(os.read(0, 100).decode(), end="")
"""


def read_by_ssh(stdin: int) -> str:
    done = subprocess.run([sys.executable, "-c", LIKE_SSH, str(LAB)], stdin=stdin, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


@pytest.fixture(params=["pipe", "file", "null"])
def stdin(request: Any, tmp_path: Path) -> Any:
    if request.param == "pipe":
        opened, write = os.pipe()
        os.write(write, b"text")
        os.close(write)
    else:
        (tmp_path / "file").write_text("...text")
        opened = os.open(tmp_path / "file" if request.param == "file" else "/dev/null", os.O_RDONLY)
        os.lseek(opened, 3, os.SEEK_SET)
    yield opened, "" if request.param == "null" else "text"
    os.close(opened)


def test_ssh_gets_what_was_given_and_ours_stays_blocking(stdin: tuple[int, str]) -> None:
    ours, text = stdin
    assert read_by_ssh(ours) == text
    assert os.get_blocking(ours)


def test_a_socket_is_handed_on_as_it_is() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"text")
        assert read_by_ssh(here.fileno()) == "text"
