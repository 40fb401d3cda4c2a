# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab does to its hosts what it says, and leaves nothing behind."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from acidlab import hosts, lifecycle, registry, ssh
from acidlab.errors import LabError
from acidlab.model import Host, Lab
from acidlab.run import kill_process, run, start_time

NAME = f"labtest{os.getpid()}"


def up(name: str, fs: str = "btrfs") -> Host:
    return lifecycle.up(name, count=1, fs=fs, prefix="t", image_name="base")[0]


def over_ssh(host: Host, command: str, *, user: str = "root", check: bool = True) -> str:
    done = run(ssh.argv(host, [command], user=user), check=check)
    return (done.stdout + (b"" if check else done.stderr)).decode().strip()


def now(host: Host) -> Host:
    return registry.find_host(host.lab, host.name)


def left_of(lab: Lab) -> list[str]:
    """What is still there of a lab on the outer machine."""
    links = [path.name for path in Path("/sys/class/net").iterdir() if path.name == lab.bridge or path.name.startswith(f"acl{lab.subnet}v")]
    spaces = [path.name for path in Path("/run/netns").glob(f"acl-{lab.name}-*")]
    groups = [str(path) for path in Path("/run/acid-lab/cgroup").glob(f"acl-{lab.name}-*")]
    loops = [line for line in run(["losetup", "-a"]).stdout.decode().splitlines() if f"/labs/{lab.name}/" in line]
    return [*links, *spaces, *groups, *loops, *(str(path) for path in (lab.run, lab.volumes, lab.images) if path.exists())]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    try:
        yield up(NAME)
    finally:
        lifecycle.down(NAME)


def test_users_and_what_each_may_do(host: Host) -> None:
    assert over_ssh(host, "id -un; systemctl is-system-running") == "root\nrunning"
    assert over_ssh(host, "sudo -n id -un", user="deploy") == "root"
    assert "password is required" in over_ssh(host, "sudo -n id -un", user="pwuser", check=False)
    assert over_ssh(host, "echo lab-secret | sudo -S -p '' id -un", user="pwuser") == "root"
    assert over_ssh(host, "echo lab-secret | sudo -S -p '' id -un || echo refused", user="plain").endswith("refused")


def test_packages_of_each_kind(host: Host) -> None:
    script = r"""
        exec 2>&1; export DEBIAN_FRONTEND=noninteractive; apt="apt-get -qq -o Dpkg::Use-Pty=0 install -y --allow-downgrades"
        say() { echo "== $*"; }
        $apt acid-demo=1.1 > /tmp/log; $apt acid-demo > /tmp/log
        $apt acid-svc acid-trigger acid-triggering acid-divert acid-alt-a acid-alt-b acid-setuid acid-cap > /tmp/log
        say $(acid-demo); say $(ls /etc/acid-demo); say $(systemctl is-active acid-svc) $(systemctl is-enabled acid-svc) $(id -un acidsvc)
        say $(cat /var/cache/acid-trigger/index); say $(acid-editor); say $(stat -c %a /usr/bin/acid-suid); say $(getcap /usr/bin/acid-cap)
        $apt acid-mta-a acid-needs-mta > /tmp/log; $apt acid-mta-b > /tmp/log; say $(acid-mail)
        $apt acid-broken > /tmp/log; say broken $? $(dpkg-query -W -f '${db:Status-Status}' acid-broken)
        $apt acid-flaky=1.0 > /tmp/log; $apt acid-flaky > /tmp/log; say flaky $?
        pacman -S --noconfirm pac-demo > /tmp/log
        pacman -U --noconfirm /srv/repo/pacman/pac-demo-1.0-1-any.pkg.tar.gz > /tmp/log; say $(pac-demo)
        pacman -S --noconfirm pac-broken > /tmp/log; say pac-broken $? $(pacman -Qq pac-broken)
    """
    assert [line for line in over_ssh(host, script).splitlines() if line.startswith("==")] == [
        "== diverted acid-demo 2.0",
        "== demo.conf",
        "== active enabled acidsvc",
        "== base more",
        "== editor b",
        "== 4755",
        "== /usr/bin/acid-cap cap_net_bind_service=ep",
        "== mail by b",
        "== broken 100 half-configured",
        "== flaky 100",
        "== pac-demo 1.0-1",
        "== pac-broken 0 pac-broken",
    ]


def test_the_repositories_are_served_on_the_bridge(host: Host) -> None:
    with urllib.request.urlopen(f"{host.lab.url}/files/blob.bin", timeout=10) as answer:
        assert len(answer.read()) == 1 << 20
    assert (
        over_ssh(host, f"curl -s {host.lab.url}/apt/Release | head -1; curl -s http://repo.lab:8080/apt/Release | head -1").count(
            "acid.host lab"
        )
        == 2
    )


def test_reboot_keeps_the_disk_and_nothing_of_the_kernel(host: Host) -> None:
    over_ssh(host, "echo kept > /root/kept; nft add table inet lost; sysctl -qw net.ipv4.tcp_keepalive_time=7100; touch /run/lost")
    lifecycle.reboot(now(host))
    assert over_ssh(host, "cat /root/kept; nft list ruleset; sysctl -n net.ipv4.tcp_keepalive_time; ls /run/lost || true") == "kept\n7200"


def test_kill_stops_everything_and_start_boots_again(host: Host) -> None:
    over_ssh(host, "systemd-run -q sleep 1000")
    hosts.kill(now(host))
    assert not hosts.running(now(host))
    assert not host.cgroup.exists()
    with pytest.raises(LabError, match="lab start"):
        ssh.inside(now(host), ["true"])
    lifecycle.wait([hosts.start(now(host))])
    assert over_ssh(host, "systemctl is-system-running") == "running"


def test_fresh_is_the_image_again(host: Host) -> None:
    over_ssh(host, "touch /root/mine; rm -r /usr/share/zoneinfo")
    lifecycle.wait([hosts.restore(now(host), None)])
    assert over_ssh(host, "ls /root/mine /usr/share/zoneinfo/UTC 2>/dev/null || true") == "/usr/share/zoneinfo/UTC"


def test_a_host_whose_keeper_died_is_replaced(host: Host) -> None:
    before = now(host)
    orphan = ssh.init_pid(host)
    assert orphan is not None
    kill_process(before.keeper, before.keeper_started)
    assert not hosts.running(before)
    lifecycle.wait([hosts.start(before)])
    assert start_time(orphan) is None
    assert over_ssh(host, "systemctl is-system-running") == "running"


def left_by_a_cut(host: Host) -> str:
    over_ssh(host, "echo old > /root/kept; rm -f /root/lost; sync; echo new >> /root/kept; echo lost > /root/lost")
    lifecycle.wait([hosts.start(hosts.cut(now(host)))])
    # ext4 may have committed the longer size of an inode whose page it had not written: then zeros follow.
    left = over_ssh(host, "tr -d '\\0' < /root/kept; cat /root/lost 2>/dev/null || true")
    assert left.splitlines()[:1] == ["old"], left
    return left


@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_a_power_cut_loses_what_was_not_flushed(fs: str) -> None:
    name = f"{NAME}{fs}"
    try:
        host = up(name, fs)
        # Not each time: a sync(2) of anybody on this machine flushes the host's disk too.
        assert any(left_by_a_cut(host) == "old" for _attempt in range(5))
    finally:
        lifecycle.down(name)


def test_power_cuts_need_a_disk_of_the_hosts_own(host: Host) -> None:
    with pytest.raises(LabError, match="--fs ext4"):
        hosts.cut(now(host))


def test_labs_do_not_touch_each_other_and_down_leaves_nothing(host: Host) -> None:
    other = up(f"{NAME}other")
    try:
        assert other.ip != host.ip
        # A host may have made subvolumes; and the lab's own processes may have died.
        run(["btrfs", "-q", "subvolume", "create", str(other.root / "srv/inner")])
        victim = now(other)
        kill_process(victim.keeper, victim.keeper_started)
    finally:
        lifecycle.down(other.lab.name)
    assert left_of(other.lab) == []
    assert over_ssh(host, "true") == ""
