# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""What cannot be put back is told by its path, all else is undone, and the rollback can be asked for again."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import any_rig, ext4, rig, rigs  # noqa: F401
from rig import Rig

PREPARE = """
mkdir full ro; mount -t tmpfs -o size=1m none full; mount -t tmpfs none ro
head -c 102400 /dev/urandom > full/f; echo old > full/g; echo old > ro/x; echo gone > ro/gone
cp /bin/sleep tool; ln tool link; chown 5:6 tool; chmod 4755 tool; for i in a b c; do echo old > conf-$i; done
"""
STEP = """
head -c 5 /dev/zero > full/f; echo new > full/g; echo new > ro/x; rm ro/gone; echo born > ro/born
cp tool /tmp/new; echo more >> /tmp/new; cat /tmp/new > tool; rm /tmp/new; for i in a b c; do echo changed > conf-$i; done
"""


def test_a_full_a_read_only_file_system_and_a_program_that_is_run(rig: Rig) -> None:
    rig.sh(PREPARE)
    before = rig.look()
    rig.begin()
    rig.step(STEP)
    assert rig.changed(before)
    rig.start("exec ./tool 300")
    rig.sh("until pidof -q tool || pgrep -x tool; do sleep 0.1; done; mount -o remount,ro ro")
    rig.sh("head -c $(( $(stat -fc '%a * %S' full) - 61440 )) /dev/zero > /run/ballast; cp /run/ballast full/ballast; rm /run/ballast")
    summary = rig.rollback(exact=False)
    assert summary["state"] == "UNDO_FAILED", summary
    told = {line.partition(": ")[0] for line in summary["differs"]}
    assert told == {f"{rig.root}/{name}" for name in ("full/f", "ro", "ro/x", "ro/gone", "ro/born")}, summary
    rig.sh('test "$(cat full/g)" = old; ! grep -L old conf-? | grep .; cmp tool /bin/sleep; cmp link tool; test tool -ef link')
    rig.sh("pgrep -x tool; mount -o remount,rw ro; rm full/ballast")
    rig.rollback()
    left = [line for line in rig.changed(before) if not line.startswith("full: mtime")]  # of the ballast, which is not its own
    assert left == [], left
    rig.sh("pkill -x tool; umount full ro")
