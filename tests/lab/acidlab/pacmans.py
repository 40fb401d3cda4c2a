# SPDX-License-Identifier: GPL-3.0-or-later
"""The local pacman repository, written by hand: an archive per package, and a database archive with one `desc` each.

packages/pacman/NAME_VERSION/: info.json (depends, groups, backup, provides, conflicts, replaces), root/, optional INSTALL (scriptlet).
Format: PKGINFO and repo-add of pacman 6; see repo-add(8) and libalpm's be_sync.c.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .debs import EPOCH

LISTS = {
    "depends": "depend",
    "groups": "group",
    "backup": "backup",
    "provides": "provides",
    "conflicts": "conflict",
    "replaces": "replaces",
}


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    info: dict[str, list[str]]
    size: int
    archive: bytes

    @property
    def file(self) -> str:
        return f"{self.name}-{self.version}-any.pkg.tar.gz"


def _add(archive: tarfile.TarFile, name: str, data: bytes | None, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.mtime, member.mode = EPOCH, mode
    member.uname = member.gname = "root"
    if data is None:
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    else:
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


def _tar(members: list[tuple[str, bytes | None, int]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.GNU_FORMAT, compresslevel=1) as archive:
        for name, data, mode in members:
            _add(archive, name, data, mode)
    return packed.getvalue()


def read(recipe: Path) -> Package:
    name, _separator, version = recipe.name.rpartition("_")
    info: dict[str, list[str]] = json.loads((recipe / "info.json").read_text(encoding="utf-8"))
    tree = sorted(path for path in (recipe / "root").rglob("*")) if (recipe / "root").exists() else []
    size = sum(path.stat().st_size for path in tree if path.is_file())
    pkginfo = [
        f"pkgname = {name}",
        f"pkgbase = {name}",
        f"pkgver = {version}",
        f"pkgdesc = lab package {name}",
        "url = https://example.org",
        f"builddate = {EPOCH}",
        "packager = lab",
        f"size = {size}",
        "arch = any",
        *(f"{LISTS[key]} = {item}" for key, items in info.items() for item in items),
    ]
    members: list[tuple[str, bytes | None, int]] = [(".PKGINFO", "".join(f"{line}\n" for line in pkginfo).encode(), 0o644)]
    if (recipe / "INSTALL").exists():
        members.append((".INSTALL", (recipe / "INSTALL").read_bytes(), 0o644))
    for path in tree:
        inner = str(path.relative_to(recipe / "root"))
        members.append(
            (inner, None, 0o755) if path.is_dir() else (inner, path.read_bytes(), 0o755 if path.stat().st_mode & 0o100 else 0o644)
        )
    return Package(name=name, version=version, info=info, size=size, archive=_tar(members))


def desc(package: Package) -> str:
    """The database's entry of a package."""
    fields: list[tuple[str, list[str]]] = [
        ("FILENAME", [package.file]),
        ("NAME", [package.name]),
        ("BASE", [package.name]),
        ("VERSION", [package.version]),
        ("DESC", [f"lab package {package.name}"]),
        ("GROUPS", package.info.get("groups", [])),
        ("CSIZE", [str(len(package.archive))]),
        ("ISIZE", [str(package.size)]),
        ("SHA256SUM", [hashlib.sha256(package.archive).hexdigest()]),
        ("URL", ["https://example.org"]),
        ("ARCH", ["any"]),
        ("BUILDDATE", [str(EPOCH)]),
        ("PACKAGER", ["lab"]),
        ("REPLACES", package.info.get("replaces", [])),
        ("CONFLICTS", package.info.get("conflicts", [])),
        ("PROVIDES", package.info.get("provides", [])),
        ("DEPENDS", package.info.get("depends", [])),
    ]
    return "".join(f"%{name}%\n" + "".join(f"{value}\n" for value in values) + "\n" for name, values in fields if values)


def build_pacman(recipes: Path, repository: Path) -> None:
    """Archives of all versions; the database names the newest of each, as a repository does."""
    repository.mkdir(parents=True, exist_ok=True)
    newest: dict[str, Package] = {}
    for recipe in sorted(path for path in recipes.iterdir() if path.is_dir()):
        package = read(recipe)
        (repository / package.file).write_bytes(package.archive)
        newest[package.name] = package
    members: list[tuple[str, bytes | None, int]] = []
    for package in newest.values():
        members += [
            (f"{package.name}-{package.version}", None, 0o755),
            (f"{package.name}-{package.version}/desc", desc(package).encode(), 0o644),
        ]
    (repository / "lab.db").write_bytes(_tar(members))
