# SPDX-License-Identifier: GPL-3.0-or-later
"""The package databases, as their own tools tell them."""

from __future__ import annotations

from .model import Key, State

DPKG = [
    "dpkg-query",
    "-W",
    "-f",
    "${Package}:${Architecture}\\t${Version}\\t${db:Status-Want}\\t${db:Status-Status}\\t${db:Status-Eflag}\\n",
]
# In memory: apt-mark would write its cache files.
NO_CACHE = ["-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
MARKS = {mark: ["apt-mark", *NO_CACHE, f"show{mark}"] for mark in ("auto", "manual", "hold")}
DIVERSIONS = ["dpkg-divert", "--list"]
OVERRIDES = ["dpkg-statoverride", "--list"]
ALTERNATIVES = ["update-alternatives", "--get-selections"]
AUDIT = ["dpkg", "--audit"]
PACMAN = {"explicit": ["pacman", "-Qe"], "dependency": ["pacman", "-Qd"]}
PACMAN_GROUPS = ["pacman", "-Qg"]


def parse_dpkg(output: str) -> State:
    found: State = {}
    for line in output.splitlines():
        name, version, want, status, flag = line.split("\t")
        found[Key("dpkg", name)] = {"version": version, "want": want, "status": status, "error": flag}
    return found


def parse_lines(kind: str, output: str) -> State:
    """One entry per line: for lists where order means nothing."""
    return {Key(kind, line): {} for line in output.splitlines() if line.strip()}


def parse_pacman(reason: str, output: str) -> State:
    found: State = {}
    for line in output.splitlines():
        name, _separator, version = line.partition(" ")
        found[Key("pacman", name)] = {"version": version, "reason": reason}
    return found
