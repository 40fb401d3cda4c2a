# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The packet filter: tables of nftables, and of iptables where those are in use.

A table is compared without its counters and put back with them, all tables in one transaction of nft's. Tables whose rules nft cannot say
(`xt` matches and targets of iptables-nft) are put back by iptables-nft-restore; those of iptables-legacy are another part of the kernel.
Nothing here loads a kernel module: what is not loaded has no rules.
"""

from __future__ import annotations

import os

from ..commands import MISSING, run
from ..errors import ProbeFailed
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe, ours
from .ruleset import iptables_tables, is_foreign, restore_script, stateless, tables

_TIMEOUT = 30.0
# (name in an image, program's name without "-save" and "-restore", what the kernel says which tables are in use)
_LEGACY = (
    ("legacy", "iptables-legacy", "/proc/net/ip_tables_names"),
    ("legacy6", "ip6tables-legacy", "/proc/net/ip6_tables_names"),
)
_COMPAT = (("compat", "iptables-nft"), ("compat6", "ip6tables-nft"))


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
        plain = _ruleset("-s", "list", "ruleset")
        image: Image = {"tables": tables(plain), "full": {}}
        if image["tables"]:
            # Counters and quotas, for putting back; where a table went in between, it has none.
            image["full"] = tables(_ruleset("list", "ruleset"))
        if any(map(is_foreign, image["tables"].values())):
            image.update({key: _save(program) for key, program in _COMPAT})
        for key, program, names in _LEGACY:
            if _in_use(names):
                image[key] = _save(program)
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
        legacy = [name for name in found.ours if name in _legacy_names(before, now)]
        self._restore_tables([name for name in found.ours if name not in legacy], before, now)
        for name in legacy:
            key, program = next((key, program) for key, program, _names in _LEGACY if name.startswith(f"{program} "))
            table = name.split(" ")[1]
            text = iptables_tables(before.get(key, "")).get(table) or f"*{table}\n"
            self._run_restore(name, [f"{program}-restore", "-c", "-T", table], text + "COMMIT\n")
        return Outcome(actions=tuple(f"packet filter: {name} is as before" for name in found.ours if name not in self._why), notes=notes)

    def _restore_tables(self, names: list[str], before: Image, now: Image) -> None:
        foreign = [name for name in names if is_foreign(before["tables"].get(name, ""))]
        plain = [name for name in names if name not in foreign]
        wanted = {name: before["full"].get(name) or before["tables"].get(name, "") for name in plain}
        if names and not self._feed("", restore_script({**wanted, **dict.fromkeys(foreign, "")}, now["tables"])):
            # One that nft does not take must not keep the others from coming back.
            for name, text in {**wanted, **dict.fromkeys(foreign, "")}.items():
                self._feed(name, restore_script({name: text}, now["tables"]))
        for name in foreign:
            _word, family, table = name.split(" ", 2)
            key, program = _COMPAT[family == "ip6"]
            text = iptables_tables(before.get(key, "")).get(table)
            if text is None:
                self._why[name] = f"it has rules of {program}, which had not saved them at begin (is {program}-save there?)"
            else:
                self._run_restore(name, [f"{program}-restore", "-c", "-T", table], text + "COMMIT\n")

    def _feed(self, name: str, script: str) -> bool:
        return self._run_restore(name, ["nft", "-f", "-"], script)

    def _run_restore(self, name: str, command: list[str], text: str) -> bool:
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


def _save(program: str) -> str:
    done = run([f"{program}-save", "-c"], timeout=_TIMEOUT)
    return done.out if done.ok else ""


def _named(image: Image) -> dict[str, object]:
    """What is compared, by a name for people."""
    found: dict[str, object] = dict(image["tables"])
    for key, program, _names in _LEGACY:
        found.update({f"{program} {table}": stateless(text) for table, text in iptables_tables(image.get(key, "")).items()})
    return found


def _legacy_names(*images: Image) -> set[str]:
    return {name for image in images for name in _named(image) if name not in image["tables"]}


def _what(old: object, new: object) -> str:
    if old is None or new is None:
        return "is there, and was not" if old is None else "is gone"
    return "has other rules"
