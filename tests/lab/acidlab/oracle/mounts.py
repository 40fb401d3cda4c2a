# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from typing import NamedTuple

from ..volatile import ABSENT, MOUNTS, PSEUDO, Matcher
from .model import Key, State

OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    device: str
    root: str
    point: str
    options: str
    propagation: str
    type: str
    source: str
    super_options: str


def _unescape(text: str) -> str:
    return OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def parse(mountinfo: str) -> list[Mount]:
    """proc(5), /proc/PID/mountinfo, without the ids."""
    found: list[Mount] = []
    for line in mountinfo.splitlines():
        left, _separator, right = line.partition(" - ")
        fields = left.split(" ")
        kind, source, super_options = right.split(" ", 2)
        # shared:12 -> shared: the number of a peer group is an id.
        propagation = " ".join(re.sub(r":[0-9]+", "", field) for field in fields[6:])
        found.append(
            Mount(
                device=fields[2],
                root=_unescape(fields[3]),
                point=_unescape(fields[4]),
                options=fields[5],
                propagation=propagation,
                type=kind,
                source=_unescape(source),
                super_options=super_options,
            )
        )
    return found


def skipped(mounts: list[Mount]) -> frozenset[str]:
    """Mount points below which nothing is walked."""
    top: dict[str, Mount] = {mount.point: mount for mount in mounts}
    return frozenset(point for point, mount in top.items() if mount.type.partition(".")[0] in PSEUDO or mount.type == "fuseblk")


def state(mounts: list[Mount]) -> State:
    """One entry per mount; several on one point are numbered in their order."""
    rules = Matcher(MOUNTS)
    base = next(mount for mount in mounts if mount.point == "/")
    found: State = {}
    seen: dict[str, int] = {}
    for mount in mounts:
        if rules.part(mount.point) == ABSENT:
            continue
        number = seen[mount.point] = seen.get(mount.point, 0) + 1
        root, source, super_options = mount.root, mount.source, mount.super_options
        if mount.device == base.device:
            # Which clone of the image the host runs on is the lab's business.
            root = root[len(base.root) :] if base.root != "/" and root.startswith(base.root) else root
            source, super_options = "ROOT", re.sub(r"subvol(id)?=[^,]*", r"subvol\1", super_options)
        found[Key("mount", f"{mount.point}#{number}")] = {
            "root": root or "/",
            "options": mount.options,
            "propagation": mount.propagation,
            "type": mount.type,
            "source": source,
            "super": super_options,
        }
    return found
