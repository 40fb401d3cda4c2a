# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that keeps one host: boots it, boots it again when it asks for a reboot, ends when it powers off.

keep() runs outside; boot() in a mount namespace and cgroup of its own, and becomes nspawn. A host whose keeper was killed counts as down:
`start` and `down` end what is left of it by its cgroup. (nspawn drops the signal that would tell it of its parent's death.)
"""

from __future__ import annotations

import os
import subprocess
import sys

from . import network
from .model import MOUNT_OPTIONS, Host
from .recipe import HERE
from .run import run

REBOOT = 133  # nspawn's exit code when the host's PID 1 asked for a reboot
CGROUP = "/sys/fs/cgroup"

NSPAWN_ENVIRONMENT = {
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
    # As on a real host: /tmp on the root file system, and no system call filter of a container.
    "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
    "SYSTEMD_SECCOMP": "0",
}


def keep(host: Host) -> int:
    while True:
        network.attach(host)
        ended = subprocess.run(
            ["unshare", "-m", "--propagation", "private", sys.executable, str(HERE / "lab"), "--lab", host.lab.name, "_boot", host.name],
            check=False,
        )
        network.detach(host)
        if ended.returncode != REBOOT:
            return ended.returncode


def boot(host: Host) -> None:
    """Replace this process by nspawn. Never returns."""
    run(["umount", "-R", "-l", CGROUP], check=False)
    run(["mount", "-t", "cgroup2", "none", CGROUP])
    group = f"{CGROUP}/{host.netns}"
    os.makedirs(group, exist_ok=True)
    with open(f"{group}/cgroup.procs", "w", encoding="ascii") as procs:
        procs.write(str(os.getpid()))
    if host.fs != "btrfs":
        # Mounted here only: another namespace's copy of the mount would keep a file system alive after a power cut.
        run(["mount", "-o", MOUNT_OPTIONS[host.fs], str(host.disk), str(host.root)])
    argv = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "-b",
        "-D",
        str(host.root),
        f"--machine={host.netns}",  # of all labs: nspawn keeps a folder for each machine, and removes it
        f"--hostname={host.name}",
        f"--network-namespace-path=/run/netns/{host.netns}",
        "--capability=CAP_NET_ADMIN,CAP_SYS_RESOURCE",
        "--bind=/dev/fuse",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=pipe",
    ]
    os.execvpe("systemd-nspawn", argv, {**os.environ, **NSPAWN_ENVIRONMENT})
