# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The packet filter: tables of nftables, and of iptables where those are in use.

A table is compared without its counters and put back with them, all tables in one transaction of nft's. nft shows the tables of
iptables-nft in a translation that iptables would not know again, so iptables-nft-restore makes them; those of iptables-legacy are another
part of the kernel.
Nothing here loads a kernel module: what is not loaded has no rules.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ..commands import MISSING, run
from ..errors import ProbeFailed
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe, ours
from .ruleset import chains_of, emptied, iptables_tables, only_chains, restore_script, skeleton, stateless, tables

_TIMEOUT = 30.0
# What the kernel says which tables are in use.
_LEGACY = (("iptables-legacy", "/proc/net/ip_tables_names"), ("ip6tables-legacy", "/proc/net/ip6_tables_names"))
_LEGACY_PROGRAMS = tuple(program for program, _names in _LEGACY)
_COMPAT = (("ip", "iptables-nft"), ("ip6", "ip6tables-nft"))
_IPTABLES = frozenset(("filter", "nat", "mangle", "raw", "security"))


class Nftables(Probe):
    name = "nftables"

    def __init__(self) -> None:
        self._why: dict[str, str] = {}

    def check(self) -> str:
        if any(
            os.path.exists(f"{folder}/{name}") for folder in ("/usr/sbin", "/sbin", "/usr/bin") for name in ("nft", "iptables-legacy-save")
        ):
            return ""
        return "There is neither nft nor iptables-legacy here."

    def capture(self) -> Image:
        image: Image = {"tables": tables(_ruleset("-s", "list", "ruleset")), "full": {}}
        if image["tables"]:
            # Counters and quotas, for putting back; where a table went in between, it has none.
            image["full"] = tables(_ruleset("list", "ruleset"))
        image["compat"] = {name: text for family, program in _COMPAT for name, text in _saved(family, program, image["tables"])}
        for program, names in _LEGACY:
            if _in_use(names):
                image[program] = iptables_tables(_save(program))
        return image

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if circumstances.rebooted and circumstances.left is None:
            return []
        left = None if circumstances.left is None else _named(circumstances.left)
        was, is_now = _named(before), _named(now)
        return [
            f"The packet filter's {name} {_what(was.get(name), is_now.get(name))}{self._reason(name)}."
            for name in ours(was, is_now, left).ours
        ]

    def _reason(self, name: str) -> str:
        return f", and cannot be brought back: {self._why[name]}" if name in self._why else ""

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if circumstances.rebooted and circumstances.left is None:
            return NOTHING
        self._why.clear()
        now = self.capture()
        was, is_now = _named(before), _named(now)
        found = ours(was, is_now, None if circumstances.left is None else _named(circumstances.left))
        notes = tuple(f"The packet filter's {name} was changed after the commit, and is left." for name in found.theirs)
        order = {name: at for at, name in enumerate(before["tables"])}
        named = sorted((name for name in found.ours if name.startswith("table ")), key=lambda name: order.get(name, -1))
        self._restore_tables(named, before, now)
        for name in found.ours:
            program, _space, table = name.partition(" ")
            if program in _LEGACY_PROGRAMS:
                text = before.get(program, {}).get(table) or emptied(now[program][table])
                self._run(name, [f"{program}-restore", "-c", "-T", table], text + "COMMIT\n")
        return Outcome(actions=tuple(f"packet filter: {name} is as before" for name in found.ours if name not in self._why), notes=notes)

    def _restore_tables(self, names: list[str], before: Image, now: Image) -> None:
        """Of those that iptables made nft makes the chains, in their order; iptables makes the rules, so that it knows them again."""
        wanted = {name: before["full"].get(name) or before["tables"].get(name, "") for name in names}
        wanted.update({name: skeleton(text) for name, text in wanted.items() if name in before["compat"]})
        if names and not self._run("", ["nft", "-f", "-"], restore_script(wanted, now["tables"])):
            # One that nft does not take must not keep the others from coming back.
            for name, text in wanted.items():
                self._run(name, ["nft", "-f", "-"], restore_script({name: text}, now["tables"]))
        for name in names:
            if name in before["compat"]:
                _word, family, table = name.split(" ", 2)
                rules = only_chains(before["compat"][name], chains_of(before["tables"][name]))
                self._run(name, [f"{dict(_COMPAT)[family]}-restore", "--noflush", "-c", "-T", table], rules + "COMMIT\n")

    def _run(self, name: str, command: list[str], text: str) -> bool:
        done = run(command, timeout=_TIMEOUT, input=text)
        if done.ok:
            self._why.pop(name, None)
        elif name:
            lines = [line for line in done.err.splitlines() if "rror" in line]
            self._why[name] = lines[0].strip() if lines else done.complaint
        return done.ok


def _ruleset(*words: str) -> str:
    if not _has_nftables():
        return ""
    done = run(["nft", *words], timeout=_TIMEOUT)
    if done.code == MISSING:
        return ""
    if not done.ok:
        raise ProbeFailed(f"nft does not say which rules there are: {done.complaint}.", hint="Try `nft list ruleset`.")
    return done.out


def _has_nftables() -> bool:
    """`nft list` would load the module, and a probe changes nothing."""
    try:
        with open("/proc/modules", encoding="ascii", errors="replace") as file:
            if any(line.startswith("nf_tables ") for line in file):
                return True
        # Not loaded: it is either built in or not in use.
        with open(f"/lib/modules/{os.uname().release}/modules.builtin", encoding="utf-8", errors="replace") as file:
            return any("/nf_tables.ko" in line for line in file)
    except FileNotFoundError:
        return True


def _in_use(names: str) -> bool:
    try:
        with open(names, encoding="ascii", errors="replace") as file:
            return bool(file.read().strip())
    except OSError:
        return False


def _saved(family: str, program: str, present: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Tables of nftables that iptables made, by nft's names for them, as iptables says them. It leaves out what is not its own."""
    if any(name.split(" ")[1] == family and name.split(" ", 2)[2] in _IPTABLES for name in present):
        for table, text in iptables_tables(_save(program)).items():
            if f"table {family} {table}" in present:
                yield f"table {family} {table}", text


def _save(program: str) -> str:
    done = run([f"{program}-save", "-c"], timeout=_TIMEOUT)
    return done.out if done.ok else ""


def _named(image: Image) -> dict[str, object]:
    """What is compared, by a name for people."""
    found: dict[str, object] = dict(image["tables"])
    found.update({name: stateless(text) for name, text in image["compat"].items()})
    for program in _LEGACY_PROGRAMS:
        # A table is there for good once anybody has looked at it.
        tables_there = image.get(program, {}).items()
        found.update({f"{program} {table}": stateless(text) for table, text in tables_there if stateless(text) != stateless(emptied(text))})
    return found


def _what(old: object, new: object) -> str:
    if old is None or new is None:
        return "is there, and was not" if old is None else "is gone"
    return "has other rules"
