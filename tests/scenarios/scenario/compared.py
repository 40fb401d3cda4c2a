# SPDX-License-Identifier: GPL-3.0-or-later
"""States of several hosts at once, by the lab's oracle, and what differs between two of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from .stage import Host

from acidlab.oracle.capture import capture  # isort: skip  (stage puts the lab on the path)
from acidlab.oracle.compare import compare
from acidlab.oracle.model import Difference, Key, State

# The name of a backup that Ansible makes holds a process id and the time of day.
BACKUP = re.compile(r"\.[0-9]+\.[0-9]{4}-[0-9]{2}-[0-9]{2}@[0-9]{2}:[0-9]{2}:[0-9]{2}~")
# Names that Ansible draws: of an asynchronous job's status, and of the folder of a module that was killed at its time limit.
DRAWN = re.compile(r"(?<=/\.ansible_async/)j[0-9]+\.[0-9]+|(?<=_payload_)[a-z0-9_]{8}(?=/|$)")
TIMES = ("mtime",)
# systemctl starts a password agent that makes a pipe here, and kills it when it is done itself: whether the agent gets that far depends on
# how fast it starts. Only where two different runs are compared, never between before and after.
BY_TIMING = "/run/systemd/ask-password-block"
# ldconfig's own cache lists inode numbers and change times of libraries (glibc, elf/cache.c): its contents are never the same on two hosts.
BY_INODES = "/var/cache/ldconfig/aux-cache"


@dataclass(frozen=True)
class States:
    of: dict[str, State]


def take(hosts: list[Host]) -> States:
    return States({host.name: capture(host) for host in hosts})


def differences(before: States, after: States, *, ignore: tuple[str, ...] = ()) -> dict[str, list[Difference]]:
    return {name: compare(before.of[name], after.of[name], ignore=ignore) for name in before.of}


def lines(found: dict[str, list[Difference]], *, limit: int = 60) -> tuple[str, ...]:
    said = [f"{name}: {difference}" for name, several in found.items() for difference in several]
    more = [f"... and {len(said) - limit} more"] if len(said) > limit else []
    return (*said[:limit], *more)


def until_quiet(hosts: list[Host], before: States, *, seconds: float) -> tuple[dict[str, list[Difference]], float]:
    """The differences once they are none, or when time is up; and how long that took (a dying connection leaves some at work)."""
    started = time.monotonic()
    while True:
        found = differences(before, take(hosts))
        waited = time.monotonic() - started
        if not any(found.values()) or waited > seconds:
            return found, waited
        time.sleep(0.5)


def stable(plain: States) -> States:
    """The same state with names that hold no time and nothing drawn."""
    return States({name: _stable(state) for name, state in plain.of.items()})


def _stable(state: State) -> State:
    drawn: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        """The same for the same; numbered by their contents where there are several of one kind, so that a missing one is noticed."""
        return drawn.setdefault(match[0], f"DRAWN-{len(drawn)}")

    by_content = sorted(state, key=lambda key: (DRAWN.sub("", key.name), str(state[key].get("sha256", "")), key))
    return {Key(key.kind, DRAWN.sub(numbered, BACKUP.sub(".BACKUP~", key.name))): state[key] for key in by_content}


def chance(one: States, other: States) -> Callable[[str, Difference], bool]:
    """Whether a difference concerns what differs between two plain runs of the same play already (random keys, process ids in files)."""
    by_chance = {
        (name, difference.key): set(difference.fields)
        for name, several in differences(one, other, ignore=TIMES).items()
        for difference in several
    }

    def known(name: str, difference: Difference) -> bool:
        if difference.key.kind == "path" and (difference.key.name + "/").startswith(BY_TIMING + "/"):
            return True
        if difference.key == Key("path", BY_INODES) and set(difference.fields) <= {"sha256"}:
            return True
        return (
            set(difference.fields) <= by_chance.get((name, difference.key), set())
            if difference.fields
            else (name, difference.key) in by_chance
        )

    return known
