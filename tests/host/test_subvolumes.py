# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""btrfs subvolumes that are not mounted by themselves, on a real host: what a step does in them and with them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import rig, rigs  # noqa: F401
from rig import Rig

#: BTRFS_IOC_SUBVOL_CREATE, without btrfs-progs
MAKE = """set -e
make() { python3 -c 'import fcntl, os, struct, sys
head, name = os.path.split(sys.argv[1])
fcntl.ioctl(os.open(head or ".", os.O_RDONLY), 0x5000940E, bytearray(struct.pack("<q4088s", 0, name.encode())))' "$1"; }
"""
TREE = f"""{MAKE}
mkdir tree other; make tree/sv; make tree/sv/inner; make empty; make cut
echo one > tree/sv/a; chmod 644 tree/sv/a
seq 5000 > tree/sv/big; ln tree/sv/big tree/sv/hard; ln -s a tree/sv/link; echo f > tree/sv/inner/f
"""


def test_what_is_done_in_a_nested_subvolume(rig: Rig) -> None:
    rig.exact(
        "chmod 600 tree/sv/a; echo two >> tree/sv/a; chown 1:1 tree/sv/big; truncate -s 7 tree/sv/big",
        "exec 3< tree/sv/inner/f; chmod 600 /proc/self/fd/3; echo more > /proc/self/fd/3",
        "rm tree/sv/hard tree/sv/a; mv tree/sv/big tree/sv/a; mkdir tree/sv/d; cp tree/sv/a tree/sv/d/",
        prepare=TREE,
    )


def test_what_is_done_with_subvolumes(rig: Rig) -> None:
    rig.exact(
        "rmdir empty; mkdir empty; touch empty/new",
        "mv cut other/; mv tree/sv tree/renamed; echo x > tree/renamed/a; chmod 700 tree/renamed",
        "rm -rf tree; [ ! -e tree ]",
        prepare=TREE,
    )


def test_another_agent_finds_them_again(rig: Rig) -> None:
    """It finds each by its root directory, wherever the step has left it."""
    rig.sh(TREE)
    before = rig.look()
    rig.begin()
    rig.step("mv tree/sv other/moved; rm other/moved/big; echo x > other/moved/a; rmdir empty")
    rig.step("rm -rf other/moved")
    rig.sh("systemctl kill -s KILL acid-agent")
    rig.wait_for("ABORTED")
    assert rig.changed(before) == []


def test_a_move_into_another_subvolume_is_named_or_refused(rig: Rig) -> None:
    rig.sh(TREE)
    rig.begin()
    rig.step("mv empty tree/sv/")
    assert any("move of the btrfs subvolume" in line for line in rig.rollback()["irreversible"])
    rig.sh("mv tree/sv/empty .")
    rig.begin(irreversible="deny")
    rig.step("python3 -c 'import os; os.rename(\"empty\", \"tree/sv/empty\")'", good=False)
    rig.rollback()
    rig.sh("test -d empty -a ! -e tree/sv/empty")


DESTROY = """destroy() { python3 -c 'import fcntl, os, struct, sys
head, name = os.path.split(sys.argv[1])
fcntl.ioctl(os.open(head or ".", os.O_RDONLY), 0x5000940F, bytearray(struct.pack("<q4088s", 0, name.encode())))' "$1"; }
"""


def test_one_that_is_deleted_with_all_that_is_in_it_is_named(rig: Rig) -> None:
    """The images that lie in it are gone with it, which is a difference. All else is undone."""
    rig.sh(f"{TREE}echo outside > outside")
    rig.begin()
    rig.step(f"{DESTROY} rm tree/sv/hard tree/sv/a; echo changed > outside; destroy tree/sv/inner; destroy tree/sv")
    found = rig.rollback(exact=False)
    assert any("ioctl" in line for line in found["irreversible"])
    assert rig.sh("cat outside; ls tree").out == "outside\n"
    assert [line.split(":")[0] for line in found["differs"]] == [f"{rig.root}/tree/sv"]
    rig.ctl("resolve", rig.tx)
