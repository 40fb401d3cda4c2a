# SPDX-License-Identifier: GPL-3.0-or-later
"""What the oracle does not compare, and why. Fixed: an entry may only be added with a reason that holds for a host without the engine,
and the engine's own default exclusions must be no wider than this list.

Not compared anywhere, since no program can set them or every program changes them: atime, ctime, birth time, inode numbers,
the size, blocks and link count of directories.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ABSENT = "absent"  # neither the path nor anything below it
CONTENT = "content"  # the path and its owner, mode, xattrs are compared; what is in it, and its mtime, are not
MTIME = "mtime"  # everything but the mtime


@dataclass(frozen=True)
class Rule:
    pattern: str  # regular expression for a whole path or name; `.*` crosses directories
    part: str
    reason: str


ENGINE = (
    Rule(r"/var/lib/acid", ABSENT, "the engine's journal and images"),
    Rule(r"/usr/local/lib/acid", ABSENT, "the engine"),
    Rule(r"/usr/local/sbin/acidctl", ABSENT, "the engine's command"),
    Rule(r"/run/acid(-door)?", ABSENT, "the engine's socket and door"),
    Rule(r"(/.*)?/\.acid-store", ABSENT, "the engine's kept inodes on other file systems"),
    Rule(r"/(etc|run)/systemd/system/(.*\.wants/)?acid-(agent.*|recover)\.service", ABSENT, "the engine's units"),
)

PATHS = (
    *ENGINE,
    Rule(r"(/root|/home/[^/]+)/\.ansible", ABSENT, "Ansible's own remote temporary directory"),
    Rule(r"/sys/.*", ABSENT, "the kernel's devices; nspawn mounts them piecewise"),
    Rule(r"/run/host", ABSENT, "nspawn's window to the outer machine"),
    Rule(r"/run/log/journal", ABSENT, "journald writes when anything happens"),
    Rule(r"/run/systemd/journal/streams", ABSENT, "one file per open stdout of a service"),
    Rule(r"/run/systemd/units", ABSENT, "PID 1's invocation ids; unit states are compared themselves"),
    Rule(r"/run/systemd/(sessions|users|inhibit)", ABSENT, "logind's list of logins"),
    Rule(r"/run/systemd/(transient|generator|generator\.early|generator\.late)", ABSENT, "PID 1 writes these anew at each reload"),
    Rule(r"/run/systemd/propagate/.*", ABSENT, "one directory per running service with a mount namespace"),
    Rule(r"/run/user/[0-9]+", ABSENT, "run-time directory of a login"),
    Rule(r"/run/credentials/.*", ABSENT, "made and removed around each start of a service"),
    Rule(r"/run/sudo/ts", ABSENT, "sudo remembers who gave a password: become with a password"),
    Rule(r"(/var)?/tmp/systemd-private-.*", ABSENT, "random name per start of a service with PrivateTmp"),
    Rule(r"/run/motd\.dynamic", ABSENT, "written by sshd's PAM at a login"),
    Rule(r"/run/utmp", CONTENT, "logins"),
    Rule(r"/run/(.*/)?[^/]*\.pid", CONTENT, "process numbers change when a service is restarted, also back to as it was"),
    Rule(r"/var/log(/.*)?/[^/]+", CONTENT, "daemons append; the files themselves are compared"),
    Rule(r"/var/lib/systemd/timers/stamp-.*", CONTENT, "the time at which a timer elapsed"),
    Rule(r"/(var/)?tmp", MTIME, "every program passes through: Ansible, sshd, PrivateTmp"),
    Rule(r"/run(/.*)?", MTIME, "services make their sockets and directories anew at each start"),
    Rule(r"/dev(/(pts|shm))?", MTIME, "terminals and shared memory of logins"),
    Rule(r"/dev/(pts/.*|ptmx|tty|console|null|zero|full|random|urandom)", MTIME, "the kernel sets a device's mtime at each write"),
)

# Only when two boots are compared (power cuts, restored snapshots).
BOOT = (Rule(r"/(dev|proc|sys)(/.*)?|/tmp/\.(ICE|X11|XIM|font)-unix", MTIME, "made anew at each boot"),)

UNITS = (
    Rule(r"acid-(agent.*|recover)\.service|(system-)?acid.*\.slice", ABSENT, "the engine's units"),
    Rule(
        r"session-.*\.scope|user@[0-9]+\.service|user-runtime-dir@[0-9]+\.service|user-[0-9]+\.slice|run-user-[0-9]+\.mount",
        ABSENT,
        "logins",
    ),
    Rule(r"run-credentials-.*\.mount", ABSENT, "made and removed around each start of a service"),
)

MOUNTS = (
    Rule(r"/run/user/[0-9]+", ABSENT, "run-time directory of a login"),
    Rule(r"/run/credentials/.*", ABSENT, "made and removed around each start of a service"),
    Rule(r"/run/systemd/(unit-private-tmp|mount-rootfs|namespace-.*|incoming)", ABSENT, "while PID 1 starts a service"),
    Rule(r"/run/host(/.*)?", ABSENT, "nspawn's window to the outer machine"),
    Rule(r"/proc/kmsg|/proc/sys/kernel/random/boot_id", ABSENT, "nspawn mounts files with random names there"),
)

SYSCTLS = (Rule(r"net\.netfilter\.nf_conntrack_count", ABSENT, "a counter"),)

# File systems that the kernel makes up, or whose server may hang or live inside a step: their mounts are compared, not their content.
PSEUDO = frozenset(
    (
        "proc",
        "sysfs",
        "cgroup",
        "cgroup2",
        "devpts",
        "mqueue",
        "hugetlbfs",
        "securityfs",
        "debugfs",
        "tracefs",
        "bpf",
        "pstore",
        "configfs",
        "binfmt_misc",
        "fusectl",
        "autofs",
        "ramfs",
        "nsfs",
        "rpc_pipefs",
        "fuse",
    )
)


class Matcher:
    """Looks up the part of a name that is not compared."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._parts = [
            (part, re.compile("|".join(f"(?:{rule.pattern})" for rule in rules if rule.part == part), re.DOTALL))
            for part in (ABSENT, CONTENT, MTIME)
            if any(rule.part == part for rule in rules)
        ]

    def part(self, name: str) -> str | None:
        for part, pattern in self._parts:
            if pattern.fullmatch(name):
                return part
        return None
