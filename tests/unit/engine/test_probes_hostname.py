# SPDX-License-Identifier: GPL-3.0-or-later
"""In a UTS namespace of its own: the machine's name is not touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"

PROGRAM = f"""
import json, sys
sys.path.insert(0, {str(ENGINE)!r})
from engine.probes.base import Circumstances
from engine.probes.hostname import Hostname, _set
probe = Hostname()
_set("hostname", "before"); _set("domainname", "nis-before")
before = probe.capture()
_set("hostname", "ours"); _set("domainname", "nis-ours")
left = probe.capture()
found = {{"before": before, "compare": probe.compare(before, left)}}
how = sys.argv[1]
if how == "later":
    _set("hostname", "theirs")
circumstances = Circumstances(left=left if how in ("committed", "later") else None, rebooted=how == "rebooted")
outcome = probe.after_files(before, circumstances)
found.update(after=probe.capture(), failures=outcome.failures, notes=outcome.notes)
found["still"] = probe.compare(before, probe.capture(), circumstances)
print(json.dumps(found))
"""


def play(how: str) -> dict:
    name = os.uname().nodename
    done = subprocess.run(["unshare", "--uts", sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert os.uname().nodename == name
    return json.loads(done.stdout)


def test_both_names_come_back() -> None:
    for how in ("open", "committed"):
        found = play(how)
        assert found["before"] == found["after"] == {"hostname": "before", "domainname": "nis-before"}
        assert len(found["compare"]) == 2
        assert (found["failures"], found["notes"], found["still"]) == ([], [], [])


def test_a_name_set_after_the_commit_is_left_and_told() -> None:
    found = play("later")
    assert found["after"] == {"hostname": "theirs", "domainname": "nis-before"}
    assert "'theirs'" in found["notes"][0]
    assert found["still"] == []


def test_another_boot_has_set_its_own() -> None:
    found = play("rebooted")
    assert found["after"]["hostname"] == "ours"
    assert found["still"] == []
