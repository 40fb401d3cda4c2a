# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd: what PID 1 believes of each unit, and what is installed.

An inactive unit may or may not be in PID 1's memory, which means nothing; so units count when they are not inactive, unit files always.
"""

from __future__ import annotations

import re

from ..volatile import ABSENT, UNITS, Matcher
from .model import Fields, Key, State

PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "Result",
    "Description",
    "Transient",
    "Type",
    "ExecStart",
    "ExecReload",
    "ExecStop",
    "Environment",
    "User",
    "Restart",
    "Wants",
    "Requires",
    "NeedDaemonReload",
    "Job",
)
SHOW = ["systemctl", "show", "--all", "--no-pager", "--property=" + ",".join(PROPERTIES), "*"]
LIST_FILES = ["systemctl", "list-unit-files", "--all", "--no-pager", "--no-legend", "--plain"]
# Of an Exec property: the command; its pid, times and exit code belong to one run.
EXEC_RUN = re.compile(r" ; start_time=[^}]*")
SETS = ("Wants", "Requires", "DropInPaths")


def parse_show(output: str) -> State:
    """`systemctl show` of many units: blocks of KEY=VALUE, an empty line between; a key may come more than once."""
    rules = Matcher(UNITS)
    found: State = {}
    for block in output.split("\n\n"):
        fields: Fields = {}
        for line in block.splitlines():
            name, _separator, value = line.partition("=")
            value = EXEC_RUN.sub("", value)
            if name in SETS:
                value = " ".join(sorted(item for item in value.split() if rules.part(item) != ABSENT))
            if value:
                fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        unit = str(fields.pop("Id", ""))
        if not unit or rules.part(unit) == ABSENT or (fields.get("ActiveState") == "inactive" and "Job" not in fields):
            continue
        found[Key("unit", unit)] = fields
    return found


def parse_files(output: str) -> State:
    """`systemctl list-unit-files`: name, state, preset."""
    rules = Matcher(UNITS)
    found: State = {}
    for line in output.splitlines():
        words = line.split()
        if words and rules.part(words[0]) != ABSENT and words[1:2] != ["transient"]:
            found[Key("unit-file", words[0])] = {"state": words[1] if len(words) > 1 else ""}
    return found
