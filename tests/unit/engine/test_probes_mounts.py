# SPDX-License-Identifier: GPL-3.0-or-later
"""fixtures/mountinfo/lab.txt is PID 1's of a lab host (Debian 12 in nspawn on btrfs). The rest: real mounts in the sandbox."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from engine.probes.base import Circumstances
from engine.probes.mountinfo import Mount, changes, parse, super_options
from engine.probes.mounts import Mounts

LAB = (Path(__file__).parent / "fixtures" / "mountinfo" / "lab.txt").read_text()
NOW = Circumstances()


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def umount(*arguments: object) -> None:
    subprocess.run(["umount", *map(str, arguments)], check=True)


def line_of(point: Path) -> str | None:
    """The mount as the kernel shows it, without the numbers that no remount keeps."""
    found = [mount for mount in parse(Path("/proc/self/mountinfo").read_text()) if mount.point == str(point)]
    return None if not found else str((found[-1].same, sorted(found[-1].flags), sorted(found[-1].super_options.split(",")), found[-1].peer))


@pytest.fixture
def probe(sandbox: Path) -> Mounts:
    # Never PID 1's here: that is the developer's machine.
    return Mounts(pid=os.getpid())


@pytest.fixture
def point(sandbox: Path) -> Path:
    folder = sandbox / "point with space"
    folder.mkdir()
    return folder


def image(probe: Mounts) -> dict:
    return json.loads(json.dumps(probe.capture()))


def undo(probe: Mounts, before: dict, circumstances: Circumstances = NOW):
    return probe.before_files(before, circumstances) + probe.after_files(before, circumstances)


def assert_as_before(probe: Mounts, before: dict) -> None:
    assert probe.compare(before, image(probe)) == []
    again = undo(probe, before)
    assert (again.actions, again.failures) == ((), ())


def test_parse_of_a_real_host() -> None:
    mounts = parse(LAB)
    assert len(mounts) == LAB.count("\n")
    root = mounts[0]
    assert (root.point, root.fstype, root.source, root.peer) == ("/", "btrfs", "/dev/loop0", "shared")
    assert [one.point for one in mounts if not one.automatic][:6] == ["/", "/sys", "/dev", "/dev/shm", "/dev/pts", "/dev/fuse"]
    assert {one.peer for one in mounts} == {"shared", "slave"}


def test_escapes_are_undone() -> None:
    (found,) = parse(r"36 35 98:0 /a\040b /mnt\011x\134y rw - ext4 /dev/disk\040one rw,errors=continue" + "\n")
    assert (found.root, found.point, found.source) == ("/a b", "/mnt\tx\\y", "/dev/disk one")


def test_the_same_twice_is_no_change_and_automatic_ones_never_are() -> None:
    mounts = parse(LAB)
    assert changes(mounts, mounts) == ((), (), ())
    assert changes([one for one in mounts if not one.automatic], mounts) == ((), (), ())
    rebooted = [one._replace(id=one.id + 900, parent=one.parent + 900) for one in mounts]
    assert changes(mounts, rebooted) == ((), (), ())


def test_born_ones_go_in_reverse_order() -> None:
    mounts = parse(LAB)
    extra = [Mount(900 + n, 1, "0:90", "/", point, "rw", "private", "tmpfs", "none", "rw") for n, point in enumerate(("/mnt", "/mnt/x"))]
    assert [one.point for one in changes(mounts, mounts + extra).born] == ["/mnt/x", "/mnt"]
    assert [one.point for one in changes(mounts + extra, mounts).gone] == ["/mnt", "/mnt/x"]


def test_mounted_since_is_unmounted_also_what_lies_on_it(probe: Mounts, point: Path) -> None:
    before = image(probe)
    mount("-t", "tmpfs", "none", point)
    (point / "inner").mkdir()
    mount("--bind", "/etc", point / "inner")
    mount("-t", "tmpfs", "none", point / "inner")
    assert len(probe.compare(before, image(probe))) == 3
    outcome = undo(probe, before)
    assert len(outcome.actions) == 3
    assert outcome.failures == ()
    assert line_of(point) is None
    assert_as_before(probe, before)


def test_one_in_use_goes_lazily_and_is_told(probe: Mounts, point: Path) -> None:
    before = image(probe)
    mount("-t", "tmpfs", "none", point)
    with open(point / "held", "w"):
        outcome = undo(probe, before)
        assert line_of(point) is None
    assert "in use" in outcome.notes[0]
    assert_as_before(probe, before)


def test_unmounted_tmpfs_comes_back_with_its_options(probe: Mounts, point: Path) -> None:
    mount("-t", "tmpfs", "-o", "size=1m,mode=0711,noexec,nosuid,noatime", "lab", point)
    mount("--make-private", point)
    shown, before = line_of(point), image(probe)
    umount(point)
    outcome = undo(probe, before)
    assert outcome.failures == ()
    assert line_of(point) == shown
    assert_as_before(probe, before)


def test_what_lay_in_memory_is_named_as_lost(probe: Mounts, point: Path) -> None:
    mount("-t", "tmpfs", "none", point)
    (point / "data").write_text("gone soon")
    before = image(probe)
    umount(point)
    outcome = undo(probe, before)
    assert "what was in it is lost" in outcome.failures[0]


def test_unmounted_bind_comes_back_to_the_same_place(probe: Mounts, point: Path, sandbox: Path) -> None:
    source = sandbox / "source"
    source.mkdir()
    (source / "file").write_text("here")
    mount("--bind", source, point)
    mount("-o", "remount,bind,ro,nodev", point)
    shown, before = line_of(point), image(probe)
    umount(point)
    assert undo(probe, before).failures == ()
    assert line_of(point) == shown
    assert (point / "file").read_text() == "here"
    assert_as_before(probe, before)


def test_options_and_propagation_come_back(probe: Mounts, point: Path) -> None:
    mount("-t", "tmpfs", "-o", "size=1m,nosuid", "none", point)
    mount("--make-private", point)
    shown, before = line_of(point), image(probe)
    mount("-o", "remount,size=2m,noexec,suid", point)
    mount("-o", "remount,bind,ro,nodev", point)
    mount("--make-shared", point)
    assert line_of(point) != shown
    outcome = undo(probe, before)
    assert outcome.failures == ()
    assert line_of(point) == shown
    assert_as_before(probe, before)


def test_options_that_were_not_there_go_again(probe: Mounts, point: Path) -> None:
    """A remount leaves alone what it is not told, so that the defaults have to be."""
    mount("-t", "tmpfs", "none", point)
    shown, before = line_of(point), image(probe)
    mount("-o", "remount,size=1m,nr_inodes=50", point)
    assert line_of(point) != shown
    assert undo(probe, before).failures == ()
    assert line_of(point) == shown
    assert_as_before(probe, before)


def test_options_of_proc_and_of_disks_that_were_not_there() -> None:
    def reset(fstype: str, old: str, new: str) -> list[str]:
        mounts = [Mount(1, 0, "0:1", "/", "/m", "rw", "private", fstype, "x", text) for text in (old, new)]
        return super_options(*mounts, pages=101, page_size=4096)

    assert reset("proc", "rw", "rw,gid=7,hidepid=invisible") == ["rw", "gid=0", "hidepid=0"]
    assert reset("proc", "rw,hidepid=noaccess", "rw,hidepid=invisible") == ["rw", "hidepid=noaccess"]
    assert reset("ext4", "rw,seclabel", "rw,seclabel,discard,nobarrier,commit=30,unknown=1") == ["rw", "nodiscard", "barrier", "commit=0"]
    assert reset("tmpfs", "rw", "rw,size=1024k,nr_inodes=5") == ["rw", "size=204800", "nr_inodes=50"]


def test_a_mount_point_that_comes_back_with_the_files(probe: Mounts, point: Path) -> None:
    mount("-t", "tmpfs", "-o", "size=1m", "none", point)
    before = image(probe)
    umount(point)
    point.rmdir()
    first = probe.before_files(before, NOW)
    assert (first.actions, first.failures) == ((), ())
    point.mkdir()
    second = probe.after_files(before, NOW)
    assert len(second.actions) == 1
    assert_as_before(probe, before)


def test_a_missing_mount_point_is_a_failure_after_the_files(probe: Mounts, point: Path) -> None:
    mount("-t", "tmpfs", "none", point)
    before = image(probe)
    umount(point)
    point.rmdir()
    assert "its mount point is missing" in undo(probe, before).failures[0]


def test_after_a_commit_only_what_the_transaction_had_left(probe: Mounts, point: Path, sandbox: Path) -> None:
    before = image(probe)
    mount("-t", "tmpfs", "-o", "size=1m", "ours", point)
    left = image(probe)
    later = sandbox / "later"
    later.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "theirs", later)
    outcome = undo(probe, before, Circumstances(left=left))
    assert line_of(point) is None
    assert line_of(later) is not None
    assert probe.compare(before, image(probe), Circumstances(left=left)) == []
    assert len(probe.compare(before, image(probe))) == 1
    assert len(outcome.actions) == 1


def test_after_a_reboot_mounts_are_the_boots_affair(probe: Mounts, point: Path) -> None:
    before = image(probe)
    mount("-t", "tmpfs", "none", point)
    assert undo(probe, before, Circumstances(rebooted=True)).actions == ()
    assert line_of(point) is not None
