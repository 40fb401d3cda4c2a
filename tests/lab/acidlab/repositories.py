# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a host installs from, made at image build under /srv/repo: apt, pacman, pip, npm, files. (The git repository: setup.sh.)"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

from .debs import EPOCH, build_apt
from .pacmans import build_pacman
from .recipe import PACKAGES

WHEEL_DATE = (2023, 11, 14, 22, 13, 20)


def build_wheel(source: Path, target: Path) -> None:
    """A pure Python wheel (PEP 427) from a directory whose name is NAME-VERSION."""
    name, _separator, version = source.name.rpartition("-")
    info = f"{name}-{version}.dist-info"
    files = {str(path.relative_to(source)): path.read_bytes() for path in sorted(source.rglob("*.py"))}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(target / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(zipfile.ZipInfo(path, WHEEL_DATE), data)


def build_npm(source: Path, target: Path) -> None:
    """A package archive as `npm pack` makes it: everything under package/."""
    with tarfile.open(target / f"{source.name}.tgz", "w:gz", compresslevel=1) as archive:
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(f"package/{path.relative_to(source)}")
            member.size, member.mtime, member.mode = path.stat().st_size, EPOCH, 0o644
            archive.addfile(member, io.BytesIO(path.read_bytes()))


def build_files(target: Path) -> None:
    """For get_url and unarchive: a megabyte of data and an archive with a tree in it."""
    (target / "blob.bin").write_bytes(bytes(range(256)) * 4096)
    with tarfile.open(target / "tree.tar.gz", "w:gz", compresslevel=1) as archive:
        for number in range(30):
            data = f"file {number}\n".encode() * (number + 1)
            member = tarfile.TarInfo(f"tree/d{number % 3}/f{number}")
            member.size, member.mtime, member.mode = len(data), EPOCH, 0o640
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("tree/link")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, "d0/f0", EPOCH
        archive.addfile(link)
    with zipfile.ZipFile(target / "tree.zip", "w") as archive_zip:
        for number in range(10):
            archive_zip.writestr(zipfile.ZipInfo(f"tree/f{number}", WHEEL_DATE), f"file {number}\n")


def build_repositories(root: Path) -> None:
    top = root / "srv/repo"
    build_apt(PACKAGES / "deb", top / "apt", root)
    build_pacman(PACKAGES / "pacman", top / "pacman")
    for kind, build in (("pip", build_wheel), ("npm", build_npm)):
        (top / kind).mkdir()
        for source in sorted((PACKAGES / kind).iterdir()):
            build(source, top / kind)
    (top / "files").mkdir()
    build_files(top / "files")
    shutil.copy(PACKAGES / "pacman.conf", root / "etc/pacman.conf")
    for path in top.rglob("*"):
        os.utime(path, (EPOCH, EPOCH))
