# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from acidlab.model import Host, Lab

LAB = Lab(name="a" * 20, subnet=249)


def test_interface_names_fit_the_kernel() -> None:
    host = Host(lab=LAB, name="h1", index=239)
    for name in (LAB.bridge, host.veth):
        assert name.startswith("acl")
        assert len(name) <= 15  # IFNAMSIZ - 1


def test_two_labs_share_no_name_and_no_address() -> None:
    one, two = (Host(lab=Lab(name=name, subnet=subnet), name="h1", index=0) for name, subnet in (("one", 16), ("two", 17)))
    for attribute in ("ip", "netns", "veth", "cgroup", "root", "disk", "state_file", "machine_id"):
        assert getattr(one, attribute) != getattr(two, attribute), attribute


def test_a_host_survives_its_state_file() -> None:
    host = Host(lab=LAB, name="h1", index=3, fs="xfs", image="big").kept_by(17, "4711")
    assert Host(lab=LAB, **host.to_json()) == host  # type: ignore[arg-type]


def test_root_is_a_subvolume_or_a_mount_of_the_hosts_own_disk() -> None:
    assert Host(lab=LAB, name="h1", index=0).root.is_relative_to(LAB.volumes)
    assert Host(lab=LAB, name="h1", index=0, fs="ext4").disk.is_relative_to(LAB.images)
