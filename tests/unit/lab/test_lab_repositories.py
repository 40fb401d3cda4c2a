# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipes of the lab's own packages: complete, and built the same each time."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from acidlab.debs import fill, generate
from acidlab.pacmans import desc, read
from acidlab.recipe import PACKAGES, image_key, tree_key

DEBS = sorted(path for path in (PACKAGES / "deb").iterdir() if path.is_dir())


@pytest.mark.parametrize("recipe", DEBS, ids=lambda path: path.name)
def test_a_recipe_says_in_its_name_what_it_builds(recipe: Path) -> None:
    control = (recipe / "DEBIAN/control").read_text(encoding="utf-8")
    name, _separator, version = recipe.name.rpartition("_")
    assert f"Package: {name}\nVersion: {version}\n" in control
    conffiles = recipe / "DEBIAN/conffiles"
    if conffiles.exists():
        assert [line for line in conffiles.read_text(encoding="utf-8").split() if not (recipe / "root" / line[1:]).exists()] == []


def test_what_git_cannot_keep_is_made(tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "usr/bin").mkdir(parents=True)
    (image / "usr/bin/true").write_text("x", encoding="ascii")
    for name in ("acid-setuid_1.0", "acid-demo_1.0"):
        stage = tmp_path / name
        stage.mkdir()
        fill(PACKAGES / "deb" / name, stage, image)
    assert (tmp_path / "acid-setuid_1.0/usr/bin/acid-suid").stat().st_mode & 0o7777 == 0o4755
    assert (tmp_path / "acid-demo_1.0/usr/share/acid-demo/data.txt").stat().st_nlink == 2
    assert (tmp_path / "acid-demo_1.0/usr/share/acid-demo/current").readlink() == Path("data.txt")


def test_generated_files_are_many_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        generate(tmp_path / name, files=250, seed="1.0")
    trees = [{path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.txt")} for name in ("one", "two")]
    assert trees[0] == trees[1]
    assert len(trees[0]) == 250
    assert len({len(data) for data in trees[0].values()}) > 20


def test_a_pacman_package_and_its_entry() -> None:
    package = read(PACKAGES / "pacman/pac-demo_2.0-1")
    with tarfile.open(fileobj=io.BytesIO(package.archive)) as archive:
        names = archive.getnames()
        info = archive.extractfile(".PKGINFO")
        assert info is not None
        text = info.read().decode()
    assert names[:2] == [".PKGINFO", ".INSTALL"]
    assert "usr/bin/pac-demo" in names
    assert "pkgver = 2.0-1\n" in text
    assert "backup = etc/pac-demo.conf\n" in text
    assert "%DEPENDS%\npac-extra\n\n" in desc(package)
    assert package.archive == read(PACKAGES / "pacman/pac-demo_2.0-1").archive


def test_images_are_keyed_by_their_recipe() -> None:
    assert tree_key("base", "bookworm") != tree_key("big", "bookworm")
    assert tree_key("base", "bookworm") != tree_key("base", "trixie")
    assert image_key("base", "bookworm") == image_key("base", "bookworm")
