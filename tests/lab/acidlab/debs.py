# SPDX-License-Identifier: GPL-3.0-or-later
"""The local apt repository: packages/deb/NAME_VERSION/ with DEBIAN/ and root/, plus recipe.json for what git cannot keep.

recipe.json: modes {path: octal}, hardlinks {new: existing}, symlinks {path: target}, copies {path: file of the image},
generate {directory, files, seed}.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from .run import run, text

EPOCH = 1_700_000_000  # one fixed time for all files made at build: two builds of one recipe are equal
RELEASE = """Origin: acid.host lab
Label: lab
Suite: stable
Codename: lab
Architectures: all amd64 arm64
Date: Tue, 14 Nov 2023 22:13:20 UTC
SHA256:
"""


def generate(top: Path, *, files: int, seed: str) -> None:
    """Many small files in directories of 100, sizes from 0 to 2,560 bytes, the same for each build."""
    for number in range(files):
        digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
        path = top / f"d{number // 100:03}" / f"f{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(digest.hex().encode() * (digest[0] % 41))


def fill(recipe: Path, stage: Path, image: Path) -> None:
    """Lay out the package's tree in an empty directory."""
    shutil.copytree(recipe / "DEBIAN", stage / "DEBIAN")
    if (recipe / "root").exists():
        shutil.copytree(recipe / "root", stage, symlinks=True, dirs_exist_ok=True)
    extra = json.loads((recipe / "recipe.json").read_text(encoding="utf-8")) if (recipe / "recipe.json").exists() else {}
    if "generate" in extra:
        generate(stage / extra["generate"]["directory"], files=extra["generate"]["files"], seed=extra["generate"]["seed"])
    for path, source in extra.get("copies", {}).items():
        (stage / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image / source, stage / path)
    for path, target in extra.get("symlinks", {}).items():
        (stage / path).symlink_to(target)
    for path, existing in extra.get("hardlinks", {}).items():
        os.link(stage / existing, stage / path)
    for path in stage.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    for path, mode in extra.get("modes", {}).items():
        (stage / path).chmod(int(mode, 8))
    for path in [*stage.rglob("*"), stage]:
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def build_apt(recipes: Path, repository: Path, image: Path) -> None:
    repository.mkdir(parents=True, exist_ok=True)
    for recipe in sorted(path for path in recipes.iterdir() if path.is_dir()):
        with tempfile.TemporaryDirectory(prefix="acl-deb-") as work:
            stage = Path(work) / "stage"
            stage.mkdir(mode=0o755)
            fill(recipe, stage, image)
            run(
                ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(stage), str(repository / f"{recipe.name}_all.deb")],
                env={"SOURCE_DATE_EPOCH": str(EPOCH)},
            )
    index = text(["sh", "-ec", 'cd "$1"; exec dpkg-scanpackages --multiversion . 2>/dev/null', "-", str(repository)]).encode()
    (repository / "Packages").write_bytes(index)
    # Without a Release file apt warns at each update, and Ansible shows it.
    (repository / "Release").write_text(f"{RELEASE} {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n", encoding="ascii")
