# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Three-way merge of the password files, row by row (passwd(5), group(5), shadow(5), gshadow(5), subuid(5)). Pure.

Fields separated by colons, the first one the row's name; the last ones of group and gshadow are sets of users.
"""

from __future__ import annotations

import typing as t


class Merged(t.NamedTuple):
    """`conflicts`: names of rows that both sides have changed, each its own way; they are in `data` as before the transaction."""

    data: bytes
    conflicts: tuple[bytes, ...] = ()


Key = tuple[bytes, int]


def merge(left: bytes, before: bytes, present: bytes, *, sets: int = 0) -> Merged:
    """`present` without what turned `before` into `left`. `sets`: how many of the last fields are comma separated sets."""
    rows, was, now = _rows(left), _rows(before), _rows(present)
    conflicts: list[bytes] = []
    result: dict[Key, bytes] = {}
    for key in _order(was, now):
        row, conflict = _row(rows.get(key), was.get(key), now.get(key), sets)
        if conflict:
            conflicts.append(key[0])
        if row is not None:
            result[key] = row
    return Merged(b"".join(row + b"\n" for row in result.values()), tuple(conflicts))


def _rows(data: bytes) -> dict[Key, bytes]:
    """A name may have several rows (subuid): they are told apart by their order."""
    found: dict[Key, bytes] = {}
    for line in data.splitlines():
        name = line.partition(b":")[0] if b":" in line and not line.startswith(b"#") else line
        number = 0
        while (name, number) in found:
            number += 1
        found[name, number] = line
    return found


def _order(was: dict[Key, bytes], now: dict[Key, bytes]) -> list[Key]:
    """As it is now; what only was before comes behind the row that it stood behind."""
    order = list(now)
    behind: Key | None = None
    for key in was:
        if key not in now:
            order.insert(order.index(behind) + 1 if behind in order else 0, key)
        behind = key
    return order


def _row(left: bytes | None, before: bytes | None, present: bytes | None, sets: int) -> tuple[bytes | None, bool]:
    if present in (left, before):
        return before, False
    if left == before:
        return present, False
    if left is None or before is None or present is None:
        return before, True
    fields = [row.split(b":") for row in (left, before, present)]
    if len({len(row) for row in fields}) != 1:
        return before, True
    merged, conflict, first_set = [], False, len(fields[0]) - sets
    for at, (mine, old, now) in enumerate(zip(*fields)):
        if at >= first_set:
            merged.append(_set(mine, old, now))
        else:
            field, wrong = _row(mine, old, now, 0) if now in (mine, old) or mine == old else (old, True)
            merged.append(field if field is not None else b"")
            conflict |= wrong
    return b":".join(merged), conflict


def _set(left: bytes, before: bytes, present: bytes) -> bytes:
    mine, old, now = ([name for name in text.split(b",") if name] for text in (left, before, present))
    added, removed = set(mine) - set(old), [name for name in old if name not in mine]
    return b",".join([name for name in now if name not in added] + [name for name in removed if name not in now])
