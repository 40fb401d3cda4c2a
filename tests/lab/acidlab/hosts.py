# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be done to a host: make, start, kill, cut the power, reboot, snapshot, restore, remove."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import sys
from pathlib import Path

from . import image, network, pool, registry, ssh
from .errors import LabError
from .model import RUN, Host, Lab
from .recipe import HERE
from .run import kill_process, run, spawn, start_time, until

FS_IOC_SHUTDOWN = 0x8004587D  # include/uapi/linux/fs.h; ext4 and xfs
SHUTDOWN_NO_LOG_FLUSH = 2


def mount_cgroup() -> None:
    with pool.lock("pool"):
        point = RUN / "cgroup"
        point.mkdir(exist_ok=True)
        if not pool.mounted(point):
            run(["mount", "-t", "cgroup2", "none", str(point)])


def make(lab: Lab, *, name: str, index: int, fs: str, image_name: str) -> Host:
    """A host with a fresh copy of the image; not started."""
    host = Host(lab=lab, name=name, index=index, fs=fs, image=image_name)
    registry.save(host)
    reset_root(host)
    return host


def reset_root(host: Host) -> None:
    """Back to the image: as new."""
    if host.fs == "btrfs":
        pool.delete(host.root)
        pool.snapshot(image.build(host.image), host.root)
        identify(host, host.root)
        return
    host.disk.parent.mkdir(parents=True, exist_ok=True)
    host.root.mkdir(parents=True, exist_ok=True)
    image.build(host.image)
    _copy_disk(image.disk(host.image, host.fs), host.disk)
    # Written in a mount namespace of its own, see keeper.boot.
    run(["unshare", "-m", "--propagation", "private", sys.executable, str(HERE / "lab"), "--lab", host.lab.name, "_identify", host.name])


def identify(host: Host, root: Path) -> None:
    """The few files that tell one clone from another."""
    (root / "etc/hostname").write_text(f"{host.name}\n", encoding="ascii")
    (root / "etc/hosts").write_text(
        f"127.0.0.1 localhost\n127.0.1.1 {host.name}\n::1 localhost\n{host.lab.gateway} repo.lab\n", encoding="ascii"
    )
    (root / "etc/machine-id").write_text(f"{host.machine_id}\n", encoding="ascii")


def _copy_disk(source: Path, target: Path) -> None:
    run(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)])


def running(host: Host) -> bool:
    return start_time(host.keeper) == host.keeper_started and bool(host.keeper_started)


def start(host: Host) -> Host:
    """Boot; returns at once. Wait with ssh.wait_ssh."""
    if running(host):
        return host
    _end(host)
    keeper = spawn([sys.executable, str(HERE / "lab"), "--lab", host.lab.name, "_keep", host.name], log=str(host.log))
    started = start_time(keeper.pid)
    if started is None:
        raise LabError(f"the keeper of {host.name} ended at once; see {host.log}")
    return registry.save(host.kept_by(keeper.pid, started))


def kill(host: Host) -> Host:
    """SIGKILL to every process of the host at once, kernel state of its network gone with it. The disk keeps what the page cache has."""
    _end(host)
    return registry.save(host.kept_by(0, ""))


def _end(host: Host) -> None:
    ssh.forget_connections(host)
    if host.keeper_started:
        kill_process(host.keeper, host.keeper_started)
    group = host.cgroup
    if group.exists():
        (group / "cgroup.kill").write_text("1", encoding="ascii")
        until(
            lambda: "populated 0" in (group / "cgroup.events").read_text(encoding="ascii"),
            seconds=30,
            what=f"end of the processes of {host.name}",
        )
        for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            path.rmdir()
        group.rmdir()
    network.detach(host)
    if host.fs != "btrfs" and host.disk.exists():
        # The mount went with the last process of its namespace; its loop device detaches itself a moment later.
        until(lambda: not run(["losetup", "-j", str(host.disk)]).stdout.strip(), seconds=30, what=f"end of the loop device of {host.disk}")


def cut(host: Host) -> Host:
    """Power cut: what was not flushed is lost. The file system stops first, so that no dying process can still write."""
    if host.fs == "btrfs":
        raise LabError(f"{host.name} is on the btrfs pool, which it shares: power cuts need `lab up --fs ext4` or `--fs xfs`")
    pid = ssh.init_pid(host)
    if pid is None:
        raise LabError(f"{host.name} is not running: nothing to cut")
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(root, FS_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NO_LOG_FLUSH))
    finally:
        os.close(root)
    return kill(host)


def snapshot(host: Host, name: str) -> None:
    """Keep the disk as it is now (of a running host: as after a power cut, with all data flushed)."""
    target = host.snapshot(name)
    if target.exists():
        raise LabError(f"{host.name} has a snapshot {name} already")
    if host.fs == "btrfs":
        run(["sync", "-f", str(host.root)])
        pool.snapshot(host.root, target, read_only=True)
    elif running(host):
        raise LabError(
            f"{host.name} is running on {host.fs}: `lab kill` it (after sync) before a snapshot; only btrfs can be copied while in use"
        )
    else:
        _copy_disk(host.disk, target)


def restore(host: Host, name: str | None) -> Host:
    """Back to a snapshot, or to the image (None), and boot."""
    if name is not None and not host.snapshot(name).exists():
        raise LabError(f"{host.name} has no snapshot {name}")
    host = kill(host)
    if name is None:
        reset_root(host)
    elif host.fs == "btrfs":
        old = host.root.with_name("root.old")
        pool.delete(old)
        host.root.rename(old)
        pool.snapshot(host.snapshot(name), host.root)
        host = start(host)
        pool.delete(old)
        return host
    else:
        _copy_disk(host.snapshot(name), host.disk)
    return start(host)


def remove(host: Host) -> None:
    """Everything that the lab made for a host, also when only half of it is there."""
    _end(host)
    volume = host.lab.volumes / host.name
    for path in [*(volume / "snap").glob("*"), volume / "root", volume / "root.old"]:
        run(["btrfs", "property", "set", "-ts", str(path), "ro", "false"], check=False)
        pool.delete(path)
    shutil.rmtree(volume, ignore_errors=True)
    for path in (host.disk, *host.disk.parent.glob(f"{host.name}@*.{host.fs}")):
        path.unlink(missing_ok=True)
    host.state_file.unlink(missing_ok=True)
    host.log.unlink(missing_ok=True)
