# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of what is not compared is short, reasoned, and does not grow wide by a careless pattern."""

from __future__ import annotations

import pytest
from acidlab import volatile
from acidlab.volatile import ABSENT, CONTENT, MTIME, PATHS, UNITS, Matcher

LISTS = (volatile.PATHS, volatile.BOOT, volatile.UNITS, volatile.MOUNTS, volatile.SYSCTLS)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc",
        "/etc/passwd",
        "/etc/systemd/system/acid-svc.service",
        "/etc/systemd/system/multi-user.target.wants/acid-svc.service",
        "/var/lib",
        "/var/lib/acid-demo",
        "/var/lib/acid-svc",
        "/var/lib/dpkg/status",
        "/var/cache/apt",
        "/usr/local/lib",
        "/usr/local/sbin",
        "/usr/local/lib/acidity",
        "/root",
        "/root/.ansible2",
        "/home/deploy",
        "/tmp/x",
        "/var/tmp/x",
        "/opt/my.acid-store",
    ],
)
def test_compared_in_full(path: str) -> None:
    assert Matcher(PATHS).part(path) is None


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/var/lib/acid", ABSENT),
        ("/.acid-store", ABSENT),
        ("/srv/data/.acid-store", ABSENT),
        ("/etc/systemd/system/acid-recover.service", ABSENT),
        ("/etc/systemd/system/multi-user.target.wants/acid-recover.service", ABSENT),
        ("/root/.ansible", ABSENT),
        ("/home/deploy/.ansible", ABSENT),
        ("/var/log/apt/history.log", CONTENT),
        ("/var/log", None),
        ("/run/sshd.pid", CONTENT),
        ("/run/lock/x", MTIME),
        ("/tmp", MTIME),
    ],
)
def test_not_compared(path: str, part: str | None) -> None:
    assert Matcher(PATHS).part(path) == part


def test_only_units_of_the_engine_and_of_logins_are_left_out() -> None:
    rules = Matcher(UNITS)
    assert rules.part("acid-agent.service") == rules.part("session-3.scope") == rules.part("user@0.service") == ABSENT
    assert [unit for unit in ("acid-svc.service", "ssh.service", "user.slice", "acid-recover.timer") if rules.part(unit)] == []


def test_each_entry_has_a_reason_and_the_list_is_short() -> None:
    rules = [rule for rules in LISTS for rule in rules]
    assert all(len(rule.reason) > 4 and rule.part in (ABSENT, CONTENT, MTIME) for rule in rules)
    assert len(rules) <= 45
