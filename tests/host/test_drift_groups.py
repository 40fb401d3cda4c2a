# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Drift where paths belong together: packages, users; files of lines that are merged; and an undo with drift that dies half way.

The lab's oracle judges the whole host: what is left of it is the administrator's, and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from drifting import admin, drift, in_a_step, kept, only, state_of, stopped, wait_for
from fixtures import rig, rigs  # noqa: F401
from rig import Rig

#: Of the oracle's lines, those that only say that somebody was there.
PASSING = ("/etc/.pwd.lock", "/var/lib/acid", "/root/.")


def left(rig: Rig, before: object) -> list[str]:
    return [line for line in rig.differences(before) if not any(path in line for path in PASSING)]  # type: ignore[arg-type]


def test_a_user_of_somebody_else_survives_and_the_transactions_is_gone(rig: Rig) -> None:
    """By row, under the password lock, with every policy."""
    before = rig.state()
    rig.begin()
    rig.step("useradd -m -s /bin/bash -G audio player; useradd -r helper; echo player:x | chpasswd; gpasswd -a plain audio")
    admin(rig, "useradd -M later; gpasswd -a later audio; echo root:new | chpasswd")
    summary = rig.rollback()
    assert {"/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"} <= {one["path"] for one in summary["drift"]["merged"]}
    said = rig.sh(
        "getent passwd player helper; getent passwd later; getent group audio; pwck -rq; grpck -r; ls -d /home/player", good=False
    ).out
    lines = said.splitlines()
    assert lines[0].startswith("later:")
    assert lines[1] == "audio:x:29:later"
    assert not any("player" in line or "helper" in line for line in lines)
    assert rig.sh("grep -c player /etc/passwd* /etc/shadow* /etc/group* /etc/gshadow* /etc/sub*", good=False).out.count(":0") == 12
    rig.sh("userdel later; usermod -p '*' root")
    names = [line for line in left(rig, before) if "/etc/passwd" not in line and "/etc/group" not in line]
    assert [line for line in names if "shadow" not in line and "/etc/sub" not in line and "/etc:" not in line] == []


def test_users_and_groups_of_the_steps_alone_are_no_drift(rig: Rig) -> None:
    """They are looked at a second time, under the password lock."""
    before = rig.state()
    rig.begin()
    rig.step("groupadd -r first; useradd -m player")
    rig.step("gpasswd -a player first; usermod -a -G first,audio plain; echo player:x | chpasswd")
    summary = rig.rollback()
    assert "drift" not in summary, summary["drift"]
    assert left(rig, before) == []


def test_a_row_that_both_have_changed(rig: Rig) -> None:
    """The whole family is left, so that its files fit together; by force the copy is kept."""
    rig.begin()
    rig.step("usermod -s /bin/dash plain; useradd helper")
    admin(rig, "usermod -s /bin/sh plain")
    summary = stopped(rig)
    assert "/etc/passwd" in {one["path"] for one in summary["drift"]["left"]}
    assert "/etc/group" in summary["drift"]["held"]
    assert rig.sh("getent passwd helper plain").out.count("\n") == 2
    summary = rig.ctl("rollback", tx=rig.tx, on_drift="force").json
    assert summary["state"] == "ABORTED"
    assert rig.sh("getent passwd helper plain", good=False).out.endswith(":/bin/bash\n")
    assert "plain" in kept(rig, summary, "passwd")


LINES = {
    "/etc/hosts": ("10.9.9.1 step", "10.9.9.2 admin"),
    "/etc/fstab": ("none /mnt/step tmpfs noauto 0 0", "none /mnt/admin tmpfs noauto 0 0"),
    "/root/.ssh/authorized_keys": ("ssh-ed25519 AAAAstep step", "ssh-ed25519 AAAAadmin admin"),
    "/etc/crontab": ("1 1 1 1 * root step", "2 2 2 2 * root admin"),
    "/etc/sudoers": ("step ALL=(ALL) ALL", "admin ALL=(ALL) ALL"),
}


def test_files_of_lines_are_merged(rig: Rig) -> None:
    rig.sh("mkdir -p -m 700 /root/.ssh; touch /root/.ssh/authorized_keys /etc/crontab")
    before = {path: rig.sh(f"cat {path}; stat -c %a:%u:%g {path}").out for path in LINES}
    rig.begin(on_drift="merge")
    rig.step("; ".join(f"sed -i '$a{step}' {path}" for path, (step, _admin) in LINES.items()) + "; chmod 600 /etc/hosts")
    rig.step("echo x > one")
    admin(rig, "; ".join(f"echo '{line}' >> {path}" for path, (_step, line) in LINES.items()))
    rig.sh("echo y >> one")
    summary = stopped(rig)
    assert sorted(one["path"] for one in summary["drift"]["merged"]) == sorted(LINES)
    assert drift(summary, "left") == ["one"]
    for path, (_step, line) in LINES.items():
        now = rig.sh(f"cat {path}; stat -c %a:%u:%g {path}").out
        content, _newline, mode = before[path].rstrip("\n").rpartition("\n")
        assert now == f"{content}{chr(10) if content else ''}{line}\n{mode}\n", path
        rig.sh(f"sed -i '$d' {path}")
    assert rig.ctl("rollback", tx=rig.tx, on_drift="force").json["state"] == "ABORTED"
    assert rig.sh("ls one; visudo -c -q", good=False).out == ""


def test_a_merged_file_that_visudo_refuses(rig: Rig) -> None:
    rig.begin(on_drift="merge")
    rig.step("echo 'deploy ALL=(ALL) NOPASSWD: /bin/true' > /etc/sudoers.d/step")
    admin(rig, "echo 'this is no sudoers file' >> /etc/sudoers.d/step")
    summary = stopped(rig)
    assert drift(summary, "left") == ["/etc/sudoers.d/step"]
    assert "visudo" in summary["differs"][0]
    assert rig.sh("wc -l < /etc/sudoers.d/step; ls /etc/sudoers.d/").out.startswith("2\n")
    assert rig.ctl("rollback", tx=rig.tx, on_drift="force").json["state"] == "ABORTED"
    assert rig.sh("ls /etc/sudoers.d/step; visudo -c -q", good=False).out == ""


def test_files_of_lines_that_do_not_go_together(rig: Rig) -> None:
    rig.sh("cp -a /etc/hosts /root/hosts.saved")
    rig.begin(on_drift="merge")
    rig.step("sed -i '1s/.*/127.0.0.1 step/' /etc/hosts")
    admin(rig, "sed -i '1s/.*/127.0.0.1 admin/' /etc/hosts")
    assert drift(stopped(rig), "left") == ["/etc/hosts"]
    shown = rig.run("acidctl", "show", rig.tx).out
    assert "-127.0.0.1 step" in shown
    assert "+127.0.0.1 admin" in shown
    assert rig.sh("head -1 /etc/hosts").out == "127.0.0.1 admin\n"
    assert rig.ctl("rollback", tx=rig.tx, on_drift="force").json["state"] == "ABORTED"
    assert rig.sh("cmp /etc/hosts /root/hosts.saved; rm /root/hosts.saved").out == ""


def test_somebody_elses_package_stays_whole_with_the_held_database(rig: Rig) -> None:
    """Finding 17: his package is in no undo log, and its conffile came so soon after a step that a daemon may have been at work for it."""
    rig.begin(probes=["etc"])
    rig.step("apt-get update -q; apt-get install -qy acid-cap; apt-get install -qyd acid-demo=1.0; systemctl daemon-reload", seconds=300)
    admin(rig, "apt-get install -qy acid-demo=1.0")
    summary = stopped(rig)
    assert "packages" in {one.get("group") for one in summary["drift"]["left"]}
    assert rig.sh("dpkg -s acid-demo acid-cap | grep -c '^Status: install ok installed'").out == "2\n"
    assert rig.sh("dpkg --verify acid-demo acid-cap; dpkg --audit", good=False).out == ""
    assert "demo.conf" in rig.run("acidctl", "show", rig.tx).out
    assert rig.ctl("rollback", tx=rig.tx, on_drift="force").json["state"] == "ABORTED"


def test_a_package_is_held_back_whole(rig: Rig) -> None:
    """A conffile that somebody edits holds back the database and all files of the transaction's packages; the rest goes back."""
    rig.sh("echo one > one")
    before, tree = rig.state(), rig.look()
    rig.begin()
    rig.step("apt-get update -q; apt-get install -qy acid-demo=1.0 acid-cap; echo step > one", seconds=300)
    admin(rig, "echo '# admin' >> /etc/acid-demo/demo.conf")
    summary = stopped(rig)
    left_paths = {one["path"] for one in summary["drift"]["left"]}
    assert left_paths == {"/etc/acid-demo"}, left_paths
    assert summary["drift"]["left"][0]["group"] == "packages"
    assert "/var/lib/dpkg/status" in summary["drift"]["held"]
    assert rig.sh(
        "dpkg -s acid-demo acid-cap | grep -c '^Status: install ok installed'; dpkg --verify acid-demo; dpkg --audit; acid-demo"
    ).out
    assert "??5?????? c /etc/acid-demo/demo.conf" in rig.sh("dpkg --verify acid-demo", good=False).out
    only(tree, rig.look(), set())
    rig.sh("rm -rf /root/.cache")
    summary = rig.ctl("rollback", tx=rig.tx, on_drift="force").json
    assert summary["state"] == "ABORTED", summary
    assert left(rig, before) == []


def test_a_package_that_somebody_installs_meanwhile(rig: Rig) -> None:
    rig.begin()
    rig.step("apt-get install -qy acid-cap; echo > one", seconds=300)
    admin(rig, "apt-get install -qy acid-setuid")
    summary = stopped(rig)
    assert "/var/lib/dpkg/status" in {one["path"] for one in summary["drift"]["left"]}
    assert rig.sh("dpkg -s acid-cap acid-setuid | grep -c '^Status: install ok installed'; dpkg --audit").out == "2\n"
    assert "one" not in rig.look()
    assert rig.ctl("resolve", rig.tx).json["state"] == "RESOLVED"
    rig.sh("apt-get purge -qy acid-setuid acid-cap")


@pytest.mark.parametrize("after", [0.05, *(pytest.param(after, marks=pytest.mark.exact) for after in (0.01, 0.02, 0.1, 0.15, 0.2))])
def test_killed_in_a_rollback_with_drift(rig: Rig, after: float) -> None:
    """The verdict is on the disk before the first change: the next agent comes to the same end."""
    tree = "for n in $(seq 30); do mkdir -p d$n; for m in 1 2 3 4 5; do seq $((n * m * 20)) > d$n/$m; done; done"
    rig.sh(tree)
    before = rig.look()
    rig.begin()
    rig.step("for n in $(seq 30); do rm d$n/1; mv d$n/2 d$n/x; echo more >> d$n/3; chmod 600 d$n/4; done")
    in_a_step(rig, "echo other >> d7/3")
    admin(rig, "echo admin >> d1/3; chmod 640 d2/4; echo admin > d3/1; chmod 1755 d5; chown 3 d6/5")
    with rig.killing(after):
        rig.ctl("rollback", tx=rig.tx, token=rig.token)
    wait_for(rig, "UNDO_FAILED")
    summary = rig.ctl("show", rig.tx).json
    assert drift(summary, "left") == ["d1/3", "d2/4", "d3/1", "d5"]
    assert drift(summary, "kept_aside") == ["d7/3"]
    assert kept(rig, summary, "d7/3").endswith("more\nother\n")
    theirs = {"d1/3", "d2/4", "d3/1", "d5", "d6/5"}
    left_there = rig.look()
    only(before, left_there, theirs)
    assert (left_there["d5"]["mode"], left_there["d6/5"]["uid"]) == ("0o41755", 3)
    assert rig.sh("tail -1 d1/3; cat d3/1; stat -c %a d2/4").out == "admin\nadmin\n640\n"
    with rig.killing(after):
        rig.ctl("rollback", tx=rig.tx, on_drift="force")
    wait_for(rig, "ABORTED", "UNDO_FAILED")
    rig.ctl("rollback", tx=rig.tx, on_drift="force")
    assert state_of(rig) == "ABORTED"
    only(before, rig.look(), {"d6/5"})


def test_force_finishes_what_stop_has_left(rig: Rig) -> None:
    rig.sh("seq 3000 > big; ln big hard; mkdir -p d/e; echo f > d/e/f; echo g > g")
    before = rig.look()
    rig.begin()
    rig.step("rm big; mv d/e h; chmod 700 d; mv g d/g; rm -f hard; mkdir big")
    admin(rig, "echo admin > big/file; echo admin > hard; echo admin >> d/g")
    assert drift(stopped(rig), "left") == ["d/g", "hard"]
    assert rig.ctl("rollback", tx=rig.tx, on_drift="force").json["state"] == "ABORTED"
    only(before, rig.look(), {"g"})
    assert rig.sh("cat g").out == "g\nadmin\n"  # the step had only moved it, so that nobody knows what it held
