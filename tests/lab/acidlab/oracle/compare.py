# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Collection

from ..volatile import BOOT, Matcher
from .model import Difference, Fields, Key, State

NOTHING: Fields = {}


def _fields(before: Fields, after: Fields, ignore: Collection[str]) -> dict[str, tuple[object, object]]:
    return {
        name: (before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if name not in ignore and before.get(name) != after.get(name)
    }


def compare(before: State, after: State, *, ignore: Collection[str] = (), across_boot: bool = False) -> list[Difference]:
    """All differences, sorted; `ignore` names fields that do not count (mtime, when two different runs are compared)."""
    found: list[Difference] = []
    rules = Matcher(BOOT)
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old is None or new is None:
            change = "added" if old is None else "removed"
            found.append(Difference(key=key, fields=_fields(old or NOTHING, new or NOTHING, ignore), change=change))  # type: ignore[arg-type]
        else:
            anew = across_boot and key.kind == "path" and rules.part(key.name)
            fields = _fields(old, new, {*ignore, "mtime"} if anew else ignore)
            if fields:
                found.append(Difference(key=key, fields=fields, change="changed"))  # type: ignore[arg-type]
    return found


def outside(found: list[Difference], prefixes: Collection[str]) -> list[Difference]:
    """The differences that are not paths at or below one of the prefixes."""

    def inside(key: Key) -> bool:
        return key.kind == "path" and any(key.name == prefix or key.name.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)

    return [difference for difference in found if not inside(difference.key)]
