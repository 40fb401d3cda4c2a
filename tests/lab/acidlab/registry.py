# SPDX-License-Identifier: GPL-3.0-or-later
"""Which labs and hosts there are: small files in /run/acid-lab, so that `down` works after any crash."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from .errors import LabError
from .model import RUN, Host, Lab
from .pool import lock

SUBNETS = range(16, 250)


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    fresh.write_text(json.dumps(value), encoding="utf-8")
    fresh.rename(path)


def labs() -> list[Lab]:
    found = []
    for path in sorted(RUN.glob("labs/*/lab.json")):
        with contextlib.suppress(FileNotFoundError):  # its `down` has come in between
            found.append(Lab(name=path.parent.name, subnet=json.loads(path.read_text(encoding="utf-8"))["subnet"]))
    return found


def find_lab(name: str) -> Lab:
    for lab in labs():
        if lab.name == name:
            return lab
    raise LabError(f"lab {name} is not up: run `lab --lab {name} up N`")


def claim_lab(name: str) -> Lab:
    """The lab of that name, with an address range of its own."""
    if not name.isalnum() or len(name) > 20:
        raise LabError(f"lab name {name!r}: letters and digits only, at most 20")
    with lock("registry"):
        known = labs()
        for lab in known:
            if lab.name == name:
                return lab
        taken = {lab.subnet for lab in known}
        lab = Lab(name=name, subnet=next(subnet for subnet in SUBNETS if subnet not in taken))
        _write(lab.run / "lab.json", {"subnet": lab.subnet})
        return lab


def hosts(lab: Lab) -> list[Host]:
    found = [Host(lab=lab, **json.loads(path.read_text(encoding="utf-8"))) for path in (lab.run / "hosts").glob("*.json")]
    return sorted(found, key=lambda host: host.index)


def find_host(lab: Lab, name: str) -> Host:
    for host in hosts(lab):
        if host.name == name:
            return host
    raise LabError(f"no host {name} in lab {lab.name}; there are: {', '.join(host.name for host in hosts(lab)) or 'none'}")


def save(host: Host) -> Host:
    _write(host.state_file, host.to_json())
    return host
