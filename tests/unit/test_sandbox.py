# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("place", ["/", "/etc", "/var/lib", "/usr", "/tmp", "/run", "/root", "/sys", str(Path(__file__).parent)])
def test_nothing_can_be_created_outside(sandbox: Path, place: str) -> None:
    with pytest.raises(OSError, match="Read-only") as raised:
        os.close(os.open(f"{place}/acid-sandbox-probe", os.O_CREAT | os.O_WRONLY))
    assert raised.value.errno == errno.EROFS


def test_children_are_held_too(sandbox: Path) -> None:
    done = subprocess.run(["touch", "/var/acid-sandbox-probe"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_the_own_folder_is_writable_also_with_what_ordinary_files_lack(sandbox: Path) -> None:
    (sandbox / "file").write_text("x")
    os.mkfifo(sandbox / "fifo")
    os.mknod(sandbox / "null", 0o600 | 0o020000, os.makedev(1, 3))
    os.setxattr(sandbox / "file", "user.acid", b"1")
    os.chown(sandbox / "file", 1234, 5678)
    assert os.stat(sandbox / "file").st_uid == 1234
