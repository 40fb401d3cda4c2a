# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Debian packages for hosts that have no network: downloaded once with all that the image lacks, by this machine's own apt
configuration, and served beside the built files as a flat repository.

If the process dies on the way, the next one starts again: a finished repository is renamed to its name as a whole.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from acidlab import image, machine
from acidlab.debs import RELEASE
from acidlab.errors import LabError


def repository(packages: tuple[str, ...], *, of_image: str, below: Path) -> Path:
    """A folder with Packages, Release and the .deb files that a host of this image needs to install the packages."""
    root = image.build(of_image)
    key = hashlib.sha256("\0".join((root.name, *packages)).encode()).hexdigest()[:12]
    place = below / key
    if place.exists():
        return place
    work = below / f"{key}.new"
    shutil.rmtree(work, ignore_errors=True)
    archives = work / "archives"
    for folder in (archives / "partial", work / "lists/partial"):
        folder.mkdir(parents=True)
    (work / "sources.list").write_text("".join(f"{line}\n" for line in machine.sources()), encoding="utf-8")
    options = [
        f"Dir::State::status={root}/var/lib/dpkg/status",
        f"Dir::State::extended_states={root}/var/lib/apt/extended_states",
        f"Dir::State::lists={work}/lists",
        f"Dir::Etc::sourcelist={work}/sources.list",
        "Dir::Etc::sourceparts=-",
        f"Dir::Cache::archives={archives}",
        f"Dir::Cache::pkgcache={work}/pkgcache.bin",
        f"Dir::Cache::srcpkgcache={work}/srcpkgcache.bin",
        "APT::Install-Recommends=false",
        "APT::Sandbox::User=root",
        "Acquire::Languages=none",
        "Debug::NoLocking=true",
    ]
    apt = ["apt-get", "-qq", "-y", *(word for option in options for word in ("-o", option))]
    _run([*apt, "update"])
    _run([*apt, "--download-only", "install", *packages])
    shutil.rmtree(archives / "partial")
    index = _run(["sh", "-ec", 'cd "$1"; exec dpkg-scanpackages . 2>/dev/null', "-", str(archives)])
    (archives / "Packages").write_bytes(index)
    (archives / "Release").write_text(f"{RELEASE} {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n", encoding="ascii")
    archives.rename(place)
    shutil.rmtree(work)
    return place


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout
