# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's settings below /proc/sys, as far as they can be written here.

A step's own writes are in the undo log and are back before this looks; what is left is what daemons wrote (systemd-sysctl, networkd,
docker), and what the kernel changed along with a setting (ip_forward changes those of every interface).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from .. import whole
from .base import NOTHING, UNKNOWN, Circumstances, Image, Ours, Outcome, Probe, ours

TOP = "/proc/sys"
# Not settings: counters, switches that do something each time they are written, and what the kernel adapts by itself.
_NOT_SETTINGS = re.compile(
    r"""
    fs/binfmt_misc(/.*)?                                 # a file system
  | fs/(dentry|inode|file)-(nr|state)                    # counters
  | kernel/ns_last_pid                                   # the last process's number
  | kernel/(hostname|domainname)                         # another probe's
  | kernel/random/.*                                     # entropy
  | kernel/perf_(event_max_sample_rate|cpu_time_max_percent)  # the kernel lowers them when interrupts take too long
  | kernel/(modules_disabled|kexec_load_disabled|usermodehelper/.*)  # one-way switches
  | kernel/(tainted|hotplug|modprobe_pipe)
  | kernel/sched_domain(/.*)?                            # made anew with the topology
  | vm/(drop_caches|compact_memory|stat_refresh)         # an action, not a value
  | net/ipv[46]/route/flush                              # an action
  | net/netfilter/nf_conntrack_count                     # a counter
  | net/ipv4/tcp_fastopen_key                            # a secret, which the kernel makes at first use
  | net/ipv6/conf/[^/]+/stable_secret                    # can be set once, and read only then
    """,
    re.VERBOSE,
)
_LARGEST = 65536
# Writing one setting can change others, so what is left is written again.
_ROUNDS = 3


class Sysctl(Probe):
    name = "sysctl"

    def __init__(self, *, top: str = TOP) -> None:
        self._top = top
        self._why: dict[str, str] = {}

    def check(self) -> str:
        return "" if os.path.isdir(self._top) else f"There is no {self._top}."

    def capture(self) -> Image:
        return {"values": dict(self._read_all(self._top, ""))}

    def _read_all(self, folder: str, prefix: str) -> Iterator[tuple[str, str]]:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            # An interface that has gone meanwhile.
            return
        for entry in entries:
            name = prefix + entry.name
            if _NOT_SETTINGS.fullmatch(name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._read_all(entry.path, name + "/")
                continue
            value = _read(entry.path)
            if value is not None:
                yield name, value

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if circumstances.rebooted and circumstances.left is None:
            return []
        was, is_now = before["values"], now["values"]
        return [
            f"The setting {_shown(name)} is {is_now[name]!r}, and was {was[name]!r}{self._reason(name)}."
            for name in _differing(before, now, circumstances).ours
        ]

    def _reason(self, name: str) -> str:
        return f"; setting it back failed: {self._why[name]}" if name in self._why else ""

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if circumstances.rebooted and circumstances.left is None:
            return NOTHING
        self._why.clear()
        was, done = before["values"], []
        now = self.capture()
        found = _differing(before, now, circumstances)
        for _round in range(_ROUNDS):
            for name in sorted(found.ours, key=_general_first):
                try:
                    with open(os.path.join(self._top, name), "wb", buffering=0) as file:
                        whole.write(file.fileno(), os.fsencode(was[name]) + b"\n")
                except OSError as error:
                    self._why[name] = error.strerror or str(error)
                else:
                    self._why.pop(name, None)
                    done.append(name)
            if not found.ours:
                break
            found = _differing(before, self.capture(), circumstances)
        return Outcome(
            actions=tuple(f"{_shown(name)} is {was[name]!r} again" for name in dict.fromkeys(done)),
            notes=tuple(f"The setting {_shown(name)} was changed after the commit, and is left." for name in found.theirs),
        )


def _differing(before: Image, now: Image, circumstances: Circumstances) -> Ours:
    """Settings that came or went did so with an interface or a module, and are other probes'."""
    common = before["values"].keys() & now["values"].keys()
    left = None
    if circumstances.left is not None:
        # One that the commit did not have went with its interface, and has come back with it as the kernel makes it.
        left = {name: circumstances.left["values"].get(name, now["values"][name]) for name in common}
    return ours({name: before["values"][name] for name in common}, {name: now["values"][name] for name in common}, left)


def _read(path: str) -> str | None:
    """None for what is not a setting: not to be read, or not to be written here."""
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode) or not mode & 0o200 or not mode & 0o400 or not os.access(path, os.W_OK):
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.fsdecode(os.read(descriptor, _LARGEST)).rstrip("\n")
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _general_first(name: str) -> tuple[bool, bool, str]:
    """What is for all interfaces overwrites what is for one."""
    return ("/conf/" in name and "/conf/all/" not in name and "/conf/default/" not in name, not name.endswith("forward"), name)


def _shown(name: str) -> str:
    """As sysctl(8) writes it: a dot within a name (eth0.5) becomes a slash."""
    return name.translate(str.maketrans("./", "/."))
