# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `acidctl show` says of drift: each path with what became of it, and the diffs of both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .table import printable

_TITLES = {
    "left": "Left as somebody else has changed it (acidctl rollback --on-drift force undoes it, with a copy kept)",
    "merged": "Merged with the changes of somebody else",
    "kept_aside": "Undone, with a copy kept of what somebody else had changed",
}
_SIDES = {"ours": "what the transaction did", "theirs": "what was done since", "both": "all that was done"}


def drift_lines(drift: dict[str, Any], listed: int) -> list[str]:
    return [line for part in (_paths(drift), _others(drift, listed)) for line in part]


def _paths(drift: dict[str, Any]) -> Iterator[str]:
    for key, title in _TITLES.items():
        if key in drift:
            yield from ("", f"{title}:")
            for one in drift[key]:
                yield from _path(one)


def _path(one: dict[str, str]) -> Iterator[str]:
    inside = f" (at {printable(one['inside'])})" if "inside" in one else ""
    kept = f", copy: {printable(one['kept'])}" if "kept" in one else ""
    yield f"  {printable(one['path'])}: {one['what']}{inside}{kept}"
    for side, title in _SIDES.items():
        if side in one:
            yield f"    {title}:"
            yield from (f"      {printable(line)}" for line in one[side].splitlines())


def _others(drift: dict[str, Any], listed: int) -> Iterator[str]:
    if "held" in drift:
        yield from ("", f"Held back with what was left ({len(drift['held'])} paths):")
        yield from (f"  {printable(path)}" for path in drift["held"][:listed])
    if "gone" in drift:
        yield from ("", f"Went with directories that were born in the transaction ({len(drift['gone'])} paths):")
        yield from (f"  {printable(one['path'])}: {one['what']}, now {printable(one['kept'])}" for one in drift["gone"][:listed])
    if "clock_set_back_seconds" in drift:
        seconds = drift["clock_set_back_seconds"]
        yield from ("", f"The clock was set back by {seconds} s since: copies were kept wherever nobody can tell who changed a path last.")
