# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Epochs: back to a savepoint exactly, then back to the start exactly; commit, and back after it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import ext4, rig, rigs  # noqa: F401
from rig import Rig, Tree

FILES = "echo one > one; echo two > two; mkdir d; echo three > d/three; seq 5000 > big; ln big hard"


def without_links(tree: Tree) -> Tree:
    """A kept inode has one link more while its transaction is open."""
    return {path: {key: value for key, value in seen.items() if key != "nlink"} for path, seen in tree.items()}


def test_two_epochs_that_touch_the_same_inodes(rig: Rig) -> None:
    rig.sh(FILES)
    before = rig.look()
    rig.begin()
    rig.step("echo 1 >> one; mv two x; rm hard; mkdir born; mv d born/; chmod 700 big; echo new > new")
    rig.savepoint("one")
    middle = rig.look()
    rig.step("echo 2 >> one; mv x two; rm -r born; echo other > big; rm new; ln -s one new")
    rig.step("rm -f one two big; mkdir one; echo > one/two")
    rig.rollback(to="one")
    assert without_links(rig.look()) == without_links(middle)
    rig.step("rm -rf born new; echo 3 > one; chmod 600 x; chown 5 x")
    rig.rollback(to="one")
    assert without_links(rig.look()) == without_links(middle)
    rig.rollback()
    assert rig.changed(before) == []


def test_what_an_undo_to_a_savepoint_made_anew_is_the_same_file_later(ext4: Rig) -> None:
    ext4.sh("ln -s x b; echo f > f; mkdir e")
    before = ext4.look()
    ext4.begin()
    ext4.step("mv b d; mv f g; mv e h")
    ext4.savepoint("s")
    ext4.step("rm d g; rmdir h")
    ext4.rollback(to="s")
    ext4.step("rm d; echo more >> g; rm g; chmod 700 h; rmdir h")
    ext4.rollback()
    assert ext4.changed(before) == []


def test_a_commit_keeps_and_a_later_rollback_is_exact(rig: Rig) -> None:
    rig.sh(FILES)
    before = rig.look()
    rig.begin()
    rig.step("echo x >> one; rm two big; mv d e; mkdir new; echo > new/f; setfattr -n user.a -v b one")
    rig.commit()
    left = rig.look()
    assert [line for line in rig.changed(before) if line.startswith("one: content")]
    rig.rollback()
    assert rig.changed(before) == []
    again = rig.ctl("rollback", tx=rig.tx)
    assert (again.code, again.json["state"], again.json["differs"]) == (0, "ABORTED", [])
    assert rig.changed(before) == []
    assert without_links(left) != without_links(before)


def test_a_commit_that_a_later_one_built_on(rig: Rig) -> None:
    """Newest first, unless nothing later touched the same paths."""
    rig.sh(FILES)
    before = rig.look()
    first = rig.begin()
    rig.step("echo first > one")
    rig.commit()
    middle = rig.look()
    second = rig.begin()
    rig.step("echo second >> one")
    rig.commit()
    refused = rig.ctl("rollback", tx=first)
    assert refused.error["class"] == "wrong-state"
    assert second in refused.error["msg"] + refused.error["hint"]
    assert rig.ctl("rollback", tx=second).json["differs"] == []
    assert rig.changed(middle) == []
    assert rig.ctl("rollback", tx=first).json["differs"] == []
    assert rig.changed(before) == []
