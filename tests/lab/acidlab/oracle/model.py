# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Union

Value = Union[str, int, list[str], dict[str, str]]
Fields = dict[str, Value]


class Key(NamedTuple):
    """kind: path, dpkg, unit, mount, ...; name: unique in its kind. Names are bytes decoded with surrogateescape."""

    kind: str
    name: str


State = dict[Key, Fields]


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was. fields: name -> (before, after); None where the thing was absent."""

    key: Key
    fields: dict[str, tuple[Value | None, Value | None]]
    change: str  # added, removed, changed

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.key.kind,
            "name": self.key.name,
            "change": self.change,
            "fields": {name: list(pair) for name, pair in self.fields.items()},
        }

    def __str__(self) -> str:
        name = self.key.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").encode("unicode_escape").decode()
        changed = ", ".join(f"{field} {before!r} -> {after!r}" for field, (before, after) in self.fields.items())
        return f"{self.change} {self.key.kind} {name}" + (f": {changed}" if self.change == "changed" else "")


def dump(state: State) -> Iterable[str]:
    """JSON lines, sorted; ASCII only, odd bytes in names as lone surrogates."""
    for key in sorted(state):
        yield json.dumps([*key, state[key]], sort_keys=True)


def load(lines: Iterable[str]) -> State:
    state: State = {}
    for line in lines:
        kind, name, fields = json.loads(line)
        state[Key(kind, name)] = fields
    return state
