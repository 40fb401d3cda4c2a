# SPDX-License-Identifier: GPL-3.0-or-later
"""What an undo must not touch, however it came there while the transaction was open."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import kernel
from engine.filesystems import FileSystem
from engine.mount_table import mounts_of
from engine.probes import service_directories
from engine.probes.base import Circumstances
from engine.probes.contents import Contents
from engine.probes.network import Network
from engine.probes.registry import BEFORE_FILES
from engine.probes.service_directories import ServiceDirectories
from engine.probes.systemctl import Systemctl

NOBODY = 54321


@pytest.fixture
def disk(sandbox: Path) -> Iterator[Path]:
    """A file system with data, on a directory that is a service's by its name."""
    place = sandbox / "lib" / "jenkins"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    (place / "years").write_text("of data\n")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("below", [False, True])
def test_what_is_mounted_on_a_services_directory_is_left(disk: Path, monkeypatch: pytest.MonkeyPatch, below: bool) -> None:
    born = disk.parent if below else disk
    monkeypatch.setattr(service_directories, "_of_services", lambda: {str(born)})
    before = {"folders": {str(born.parent): {"names": [], "mtime_ns": 0}}}
    outcome = ServiceDirectories().before_files(before, Circumstances(attic=str(disk.parents[1] / "attic")))
    assert [str(disk) in sentence and "is mounted" in sentence for sentence in outcome.failures] == [True], outcome
    assert (disk / "years").read_text() == "of data\n"


def test_a_directory_that_is_busy_is_not_emptied(disk: Path) -> None:
    with pytest.raises(OSError, match="busy"):
        service_directories._remove(str(disk), str(disk.parents[1] / "attic"))
    assert (disk / "years").read_text() == "of data\n"


def test_mounts_go_before_the_directories_that_they_are_on() -> None:
    names = [probe.name for probe in BEFORE_FILES]
    assert names.index("systemd") < names.index("mounts") < names.index("service_directories")


def test_a_container_that_has_ended_is_no_link_of_ours() -> None:
    recorded = json.loads((Path(__file__).parent / "fixtures" / "netlink" / "lab.json").read_text())
    lost = list(recorded["links"][-1])
    lost[0], lost[1], lost[2], lost[-2] = 4711, "vethabc", "veth", True
    before = {**recorded, "links": [*recorded["links"], lost]}
    assert Network().compare(before, recorded) == []
    lost[-2] = False
    assert Network().compare(before, recorded) != []


def test_the_manager_of_a_user_who_is_gone_is_asked_by_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "stat", lambda _path: os.stat_result((0, 0, 0, 0, NOBODY, 777, 0, 0, 0, 0)))
    assert "--regid 777" in " ".join(Systemctl(NOBODY)._way())


def test_an_object_that_a_power_cut_emptied_is_written_again(tmp_path: Path) -> None:
    contents, digest = Contents(str(tmp_path / "contents")), "a591a6d40bf420404a011733cfb7b190d62c65bf0bcda32b57b277d9ad9f146e"
    contents.add(digest, b"Hello World")
    (found,) = [path for path in (tmp_path / "contents").rglob("*") if path.is_file()]
    found.write_bytes(b"")
    contents.add(digest, b"Hello World")
    assert contents.get(digest) == b"Hello World"


def test_a_file_system_is_reopened_only_as_itself(sandbox: Path) -> None:
    place = sandbox / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], check=True)
    mount = next(mount for mount in mounts_of() if mount.point == os.fsencode(place))
    fs = FileSystem(1, kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(place)).dev, mount.fstype, mount.point)
    fs.open_mount()
    try:
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        assert fs.reopen()
        assert not os.fstatvfs(fs.mount_fd).f_flag & os.ST_RDONLY
        assert not fs.reopen(), "it is writable"
        fs.close()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        fs.open_mount()
        subprocess.run(["umount", str(place)], check=True)
        held = os.fstat(fs.mount_fd).st_dev
        assert not fs.reopen(), "what lies there now is another one"
        assert os.fstat(fs.mount_fd).st_dev == held
    finally:
        fs.close()
