# SPDX-License-Identifier: GPL-3.0-or-later
"""Run-time state on a real host: steps that ask PID 1 and other daemons to act, by acidctl alone, and the oracle before and after."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from acidlab.oracle.compare import compare

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from probehost import Host, encoded, lab

SERVICES = """
unit() { cat > /etc/systemd/system/lab-$1.service; }
for name in runs reloads restarts keeper; do unit $name <<X
[Service]
ExecStart=/bin/sh -c 'cat /etc/lab-$name.conf > /run/lab-$name; exec sleep 100000'
ExecReload=/bin/sh -c 'cat /etc/lab-$name.conf > /run/lab-$name'
X
echo old > /etc/lab-$name.conf
done
unit idle <<X
[Service]
ExecStart=/bin/sleep 100000
[Install]
WantedBy=multi-user.target
X
unit saves <<X
[Service]
ExecStart=/bin/sleep 100000
ExecStopPost=/bin/sh -c 'echo saved by \\$(cat /etc/lab-saves.conf) > /var/lib/lab-saves'
X
echo old > /etc/lab-saves.conf; echo before > /var/lib/lab-saves
unit needs <<X
[Unit]
Requires=lab-restarts.service
After=lab-restarts.service
[Service]
ExecStart=/bin/sleep 100000
X
unit stays <<X
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat /etc/lab-stays.conf > /run/lab-stays'
X
echo old > /etc/lab-stays.conf
unit crashes <<X
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh -c 'echo >> /run/lab-crashes; [ \\$(wc -l < /run/lab-crashes) -gt 2 ] && exec sleep 100000; sleep 2; exit 1'
Restart=always
RestartSec=50ms
X
unit ticked <<X
[Service]
ExecStart=/bin/sleep 100000
X
cat > /etc/systemd/system/lab-ticked.timer <<X
[Timer]
OnActiveSec=6
AccuracySec=100ms
X
systemctl daemon-reload
systemctl start lab-{runs,reloads,restarts,keeper,saves,needs,stays}
sync
"""


@pytest.fixture(scope="module")
def booted() -> Iterator[Host]:
    lab("down")
    lab("up", "1")
    host = Host("h1")
    host.sh(SERVICES)
    host.install()
    lab("snapshot", "h1", "ready")
    yield host
    lab("down")


@pytest.fixture
def host(booted: Host) -> Host:
    lab("restore", "h1", "ready")
    booted.sh("systemctl start lab-{runs,reloads,restarts,keeper,saves,needs,stays}")
    return booted


def test_installing_the_engine_leaves_nothing_but_itself(host: Host) -> None:
    host.sh("acidctl uninstall; rm -rf /var/lib/acid /usr/local/lib/acid /usr/local/sbin/acidctl")
    before = host.state()
    host.install()
    assert host.sh("systemctl is-enabled acid-recover.service").strip() == "enabled"
    assert compare(before, host.state()) == []
    host.sh("acidctl uninstall")
    assert compare(before, host.state()) == []
    assert host.sh("ls /etc/systemd/system | grep acid; ls /etc/systemd/system/sysinit.target.wants | grep acid", check=False) == ""


def test_units_come_back(host: Host) -> None:
    before = host.state()
    kept = host.show("lab-keeper.service", "InvocationID")
    host.begin()
    host.step("for f in /etc/lab-*.conf; do echo new > $f; done; echo step > /var/lib/lab-saves")
    host.step("systemctl stop lab-runs; systemctl reload lab-reloads; systemctl restart lab-restarts lab-stays lab-saves")
    host.step("systemctl enable --now lab-idle; systemctl mask systemd-fsckd.socket; systemctl disable cron; systemctl stop cron")
    host.step(
        "printf '[Service]\\nExecStart=/bin/sleep 100000\\nStateDirectory=lab-born\\n[Install]\\nWantedBy=multi-user.target\\n'"
        " > /etc/systemd/system/lab-born.service; systemctl daemon-reload; systemctl enable --now lab-born"
    )
    host.step("systemctl set-property lab-keeper.service CPUWeight=50; systemctl set-default rescue.target")
    host.step("systemd-run -u lab-run sleep 100000")
    host.step("cd /etc/systemd/system; mkdir lab-keeper.service.d; printf '[Service]\\nNice=3\\n' > lab-keeper.service.d/x.conf")
    host.step("cd /etc/systemd/system; printf '[Service]\\nExecStart=/bin/false\\n' > lab-fails.service; systemctl daemon-reload")
    host.step("systemctl start lab-fails")
    assert len(compare(before, host.state())) > 20
    summary = host.rollback()
    assert (summary["state"], summary["differs"]) == ("ABORTED", [])
    assert compare(before, host.state()) == []
    # Each runs with the old files, also where it was up before, in the step and after.
    for name in ("reloads", "restarts", "stays"):
        assert host.sh(f"cat /run/lab-{name}") == "old\n", name
    # What a service wrote when it was stopped was undone too: it was stopped before the files went back.
    assert host.sh("cat /var/lib/lab-saves") == "before\n"
    assert host.show("lab-keeper.service", "InvocationID") == kept, "a unit that no step moved goes on"
    assert {"lab-restarts.service", "lab-runs.service", "lab-reloads.service"} <= set(summary["units"])


def test_units_that_moved_by_themselves_are_left(host: Host) -> None:
    host.sh("systemctl start lab-crashes lab-ticked.timer")
    host.begin()
    # The one crashes twice, after 2 s each, and then runs on: between two starts nobody could tell at the undo whose they are.
    host.step("sleep 7; echo new > /etc/lab-runs.conf")
    units = ("lab-crashes.service", "lab-ticked.service")
    moved = [host.show(unit, "InvocationID", "ActiveState") for unit in units]
    assert [unit["ActiveState"] for unit in moved] == ["active", "active"]
    summary = host.rollback()
    assert summary["state"] == "ABORTED"
    assert not [unit for unit in summary["units"] if unit.startswith(("lab-crashes", "lab-ticked"))]
    assert [host.show(unit, "InvocationID", "ActiveState") for unit in units] == moved


def test_an_undo_after_the_commit_that_died_has_its_units_started(host: Host) -> None:
    """It was killed while systemd read its unit files again, which the generator makes long: the services were down for the files' sake."""
    place = "/etc/systemd/system-generators"
    host.sh(f"mkdir -p {place}; printf '#!/bin/sh\\ntouch /run/reading; sleep 2\\n' > {place}/lab; chmod 755 {place}/lab")
    before = host.state()
    host.begin()
    host.step("for f in /etc/lab-*.conf; do echo new > $f; done; systemctl restart lab-restarts")
    host.commit()
    host.sh(
        f"acidctl rollback {host.tx} > /dev/null 2>&1 &"
        "until pid=$(systemctl show -P MainPID acid-agent) && [ $pid != 0 ]; do sleep 0.05; done;"
        "until [ -e /run/reading ]; do sleep 0.02; done; kill -9 $pid; wait"
    )
    summary = host.rollback()
    assert (summary["state"], summary["differs"]) == ("ABORTED", [])
    host.sh("rm /run/reading")
    assert compare(before, host.state()) == []


def test_a_users_manager_that_is_ending_is_no_failure(host: Host) -> None:
    """As it is 10 seconds after the user's last login; the drop-in makes that moment long."""
    place = "/etc/systemd/system/user@.service.d"
    host.sh(f"mkdir {place}; printf '[Service]\\nExecStopPost=/bin/sleep 8\\n' > {place}/x.conf")
    host.sh("systemctl daemon-reload; loginctl enable-linger root; until test -e /run/user/0/systemd/private; do sleep 0.1; done; sleep 1")
    host.begin()
    host.step("mkdir -p /etc/systemd/user; printf '[Service]\\nExecStart=/bin/sleep 9\\n' > /etc/systemd/user/lab-later.service")
    host.step("systemctl --user daemon-reload; systemctl --user start lab-later")
    host.sh("systemctl stop --no-block user@0; sleep 1; test -e /run/user/0/systemd/private")
    summary = host.rollback()
    assert (summary["state"], summary["differs"]) == ("ABORTED", [])


def test_names_zone_and_mounts_come_back(host: Host) -> None:
    host.sh("mkdir -p /srv/bound /srv/kept; mount --bind /etc /srv/bound; mount -t tmpfs -o size=1m,mode=0750,noexec kept /srv/kept")
    before = host.state()
    host.begin()
    host.step("hostnamectl set-hostname other.example; hostnamectl set-chassis vm; timedatectl set-timezone Asia/Tokyo")
    host.step("mount -t tmpfs -o size=2m new /mnt; echo x > /mnt/file; mkdir /srv/new")
    host.step("mount --bind /usr /srv/new; mount -o remount,ro,bind /srv/new; mount -o remount,noexec /dev/shm")
    host.step("umount /srv/bound; rmdir /srv/bound; mount -o remount,exec,size=2m /srv/kept; umount /srv/kept")
    assert len(compare(before, host.state())) > 8
    summary = host.rollback()
    assert (summary["state"], summary["differs"]) == ("ABORTED", [])
    assert compare(before, host.state()) == []
    assert host.sh("uname -n").strip() == "h1"


def test_a_savepoint_is_a_beginning_too(host: Host) -> None:
    host.begin()
    host.step("systemctl stop lab-runs; hostnamectl set-hostname between")
    host.sh(f"acidctl savepoint --json --request {encoded({'tx': host.tx, 'token': host.token, 'name': 'here'})}")
    before = host.state()
    host.step("systemctl start lab-runs lab-idle; systemctl enable lab-idle; hostnamectl set-hostname later; echo x > /etc/lab-runs.conf")
    host.sh(f"acidctl rollback --json --request {encoded({'tx': host.tx, 'token': host.token, 'to': 'here'})}")
    assert compare(before, host.state()) == []
    host.sh(f"acidctl rollback {host.tx}")


def test_rollback_after_commit_leaves_what_came_later(host: Host) -> None:
    before = host.state()
    host.begin()
    host.step("systemctl stop lab-runs; systemctl enable --now lab-idle; hostnamectl set-hostname other; echo new > /etc/lab-restarts.conf")
    host.step("systemctl restart lab-restarts")
    assert host.commit()["state"] == "COMMITTED"
    host.sh("systemctl stop lab-reloads; timedatectl set-timezone Asia/Tokyo")
    summary = host.rollback()
    assert (summary["state"], summary["differs"]) == ("ABORTED", [])
    assert host.show("lab-reloads.service", "ActiveState")["ActiveState"] == "inactive"
    assert "Tokyo" in host.sh("readlink /etc/localtime")
    host.sh("systemctl start lab-reloads; systemctl stop systemd-timedated; ln -sfn ../usr/share/zoneinfo/Etc/UTC /etc/localtime")
    assert host.sh("cat /run/lab-restarts") == "old\n"
    # /etc/localtime was made anew by this test.
    assert [found.key.name for found in compare(before, host.state())] == ["/etc", "/etc/localtime"]


def test_a_crash_is_undone_before_services_start(host: Host) -> None:
    host.sh("systemctl enable lab-idle; systemctl disable cron; sync")
    lab("reboot", "h1")
    after_boot = host.state()
    host.begin(durability="power")  # without it an undo after a crash does not claim to be exact
    host.step("systemctl disable lab-idle; systemctl enable cron; echo new > /etc/lab-runs.conf; systemctl enable ssh")
    born = '[Service]\\nExecStart=/bin/sh -c "echo started >> /root/born; exec sleep 10000"\\n[Install]\\nWantedBy=multi-user.target\\n'
    host.step(f"printf '{born}' > /etc/systemd/system/lab-born.service; systemctl daemon-reload; systemctl enable lab-born; sync")
    lab("kill", "h1")
    lab("start", "h1")
    deadline = time.monotonic() + 60
    while host.sh("systemctl is-system-running", check=False).strip() == "starting" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert json.loads(host.sh("acidctl list --json"))["transactions"][0]["state"] == "ABORTED"
    assert host.sh("systemctl show -p Result --value acid-recover").strip() == "success"
    assert host.sh("ls /root/born", check=False) == "", "a unit that the transaction enabled never started"
    assert host.sh("systemctl is-active lab-idle").strip() == "active"
    assert host.sh("systemctl is-active cron", check=False).strip() == "inactive"
    assert host.sh("systemctl --failed --no-legend") == ""
    assert compare(after_boot, host.state(), across_boot=True) == []
