# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from engine import units

FOLDER = "etc/systemd/system"


@pytest.fixture
def root(sandbox: Path) -> Path:
    folder = sandbox / FOLDER
    folder.mkdir(parents=True)
    (folder / "other.service").write_text("[Service]\n")
    os.utime(folder, ns=(10**18, 10**18))
    return sandbox


def look(root: Path) -> dict[str, tuple[int, str]]:
    paths = (root / "etc").rglob("*")
    return {str(path.relative_to(root)): (path.lstat().st_mtime_ns, os.readlink(path) if path.is_symlink() else "") for path in paths}


def test_install_and_uninstall_leave_no_trace(root: Path) -> None:
    before = look(root)
    assert units.install(root=str(root)) is True
    assert look(root)[FOLDER] == before[FOLDER], "the directory keeps its time"
    assert units.install(root=str(root)) is False
    assert units.uninstall(root=str(root)) is True
    assert look(root) == before
    assert units.uninstall(root=str(root)) is False


def test_recovery_is_enabled_and_readable(root: Path) -> None:
    units.install(root=str(root))
    link = root / FOLDER / "sysinit.target.wants" / "acid-recover.service"
    assert os.readlink(link) == "/etc/systemd/system/acid-recover.service"
    assert {(root / FOLDER / name).stat().st_mode & 0o777 for name in units.TEXTS} == {0o644}


def test_others_in_the_wants_directory_stay(root: Path) -> None:
    wants = root / FOLDER / "sysinit.target.wants"
    wants.mkdir()
    (wants / "theirs.service").symlink_to("/x")
    os.utime(wants, ns=(10**18 + 1, 10**18 + 1))
    os.utime(wants.parent, ns=(10**18, 10**18))
    before = look(root)
    units.install(root=str(root))
    units.uninstall(root=str(root))
    assert look(root) == before


def test_an_older_engines_unit_is_replaced(root: Path) -> None:
    units.install(root=str(root))
    (root / FOLDER / units.AGENT).write_text("old")
    (root / FOLDER / "sysinit.target.wants" / units.RECOVER).unlink()
    (root / FOLDER / "sysinit.target.wants" / units.RECOVER).symlink_to("/elsewhere")
    assert units.install(root=str(root)) is True
    assert (root / FOLDER / units.AGENT).read_text() == units.TEXTS[units.AGENT]
    assert units.install(root=str(root)) is False


def test_systemd_takes_every_line(root: Path) -> None:
    units.install(root=str(root))
    binary = root / units.ACIDCTL.lstrip("/")
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", "--man=no", *units.TEXTS], capture_output=True, text=True, check=False, timeout=60
    )
    # Other units are not there below this root; lines of ours that are wrong name our files.
    ours = [line for line in done.stderr.splitlines() if "acid-" in line]
    wrong = [line for line in ours if any(word in line for word in ("Unknown", "Failed", "Invalid"))]
    assert wrong == [], done.stderr


def test_the_promises_of_the_agents_unit() -> None:
    lines = set(units.TEXTS[units.AGENT].splitlines())
    assert {
        "Restart=always",
        "RestartSec=100ms",
        "StartLimitIntervalSec=0",
        "FileDescriptorStoreMax=512",
        "KillMode=process",
        "OOMScoreAdjust=-900",
    } <= lines
    hiding = ("PrivateTmp", "ProtectSystem", "ProtectHome", "PrivateMounts", "MountFlags", "RootDirectory")
    assert not [line for line in lines if line.startswith(hiding)], "it must see the mounts that the steps see"
