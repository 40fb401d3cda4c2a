# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab is made of, and the names that it takes on the outer machine (all begin with `acl`)."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

CACHE = Path("/var/cache/acid-lab")
RUN = Path("/run/acid-lab")
POOL = CACHE / "pool"
KEY = CACHE / "key"
FILE_SYSTEMS = ("btrfs", "ext4", "xfs")
#: of a host's disk. Each is a copy of one image: hosts of xfs have one UUID, and the kernel mounts the second only when told to
MOUNT_OPTIONS = {"ext4": "loop,noinit_itable", "xfs": "loop,nouuid"}


@dataclass(frozen=True)
class Lab:
    """One address range of hosts; several labs live side by side."""

    name: str
    subnet: int

    @property
    def run(self) -> Path:
        return RUN / "labs" / self.name

    @property
    def bridge(self) -> str:
        return f"aclbr{self.subnet}"

    @property
    def gateway(self) -> str:
        return f"10.213.{self.subnet}.1"

    @property
    def url(self) -> str:
        return f"http://{self.gateway}:8080"

    @property
    def volumes(self) -> Path:
        """Subvolumes of the pool: roots of the hosts and their snapshots."""
        return POOL / "labs" / self.name

    @property
    def images(self) -> Path:
        """Loop images of hosts on ext4 and xfs, outside the pool: no btrfs under a file system that is to lose power."""
        return CACHE / "labs" / self.name


@dataclass(frozen=True)
class Host:
    lab: Lab
    name: str
    index: int
    fs: str = "btrfs"
    image: str = "base"
    keeper: int = 0
    keeper_started: str = ""

    @property
    def ip(self) -> str:
        return f"10.213.{self.lab.subnet}.{self.index + 10}"

    @property
    def netns(self) -> str:
        return f"acl-{self.lab.name}-{self.name}"

    @property
    def veth(self) -> str:
        return f"acl{self.lab.subnet}v{self.index}"

    @property
    def cgroup(self) -> Path:
        return RUN / "cgroup" / self.netns

    @property
    def machine_id(self) -> str:
        return hashlib.sha256(f"{self.lab.name}/{self.name}".encode()).hexdigest()[:32]

    @property
    def state_file(self) -> Path:
        return self.lab.run / "hosts" / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return self.lab.run / "hosts" / f"{self.name}.log"

    @property
    def root(self) -> Path:
        """Where the root tree is: a subvolume, or the mount point inside the keeper's own mount namespace."""
        return self.lab.volumes / self.name / "root" if self.fs == "btrfs" else self.lab.run / "roots" / self.name

    @property
    def disk(self) -> Path:
        return self.lab.images / f"{self.name}.{self.fs}"

    def snapshot(self, name: str) -> Path:
        return self.lab.volumes / self.name / "snap" / name if self.fs == "btrfs" else self.lab.images / f"{self.name}@{name}.{self.fs}"

    def kept_by(self, pid: int, started: str) -> Host:
        return replace(self, keeper=pid, keeper_started=started)

    def to_json(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if key != "lab"}
