# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Three-way merge of files of lines: take one's changes back out of what the other has added to. Pure."""

from __future__ import annotations

import difflib
import typing as t


class _Hunk(t.NamedTuple):
    """Lines [start, end) of what the step left are these."""

    start: int
    end: int
    lines: tuple[bytes, ...]


def merge(left: bytes, before: bytes, present: bytes) -> bytes | None:
    """`present` without what turned `before` into `left`; None when both have changed the same lines. Lines that only touch are no
    conflict: in these files each line stands for itself."""
    base = left.splitlines()
    ours, theirs = _hunks(base, before.splitlines()), _hunks(base, present.splitlines())
    if any(_collide(one, other) for one in ours for other in theirs):
        return None
    hunks = sorted(
        {(hunk.start, hunk.end, side, hunk) for side, found in ((0, ours), (1, theirs)) for hunk in found if not _twice(hunk, side, ours)}
    )
    merged: list[bytes] = []
    at = 0
    for start, end, _side, hunk in hunks:
        merged += base[at : max(at, start)]
        merged += hunk.lines
        at = max(at, end)
    merged += base[at:]
    return b"".join(line + b"\n" for line in merged)


def _hunks(base: list[bytes], other: list[bytes]) -> list[_Hunk]:
    matcher = difflib.SequenceMatcher(None, base, other, autojunk=False)
    return [_Hunk(a, b, tuple(other[c:d])) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]


def _twice(hunk: _Hunk, side: int, ours: list[_Hunk]) -> bool:
    """The other side has made the very change that is to be made: once is enough."""
    return side == 1 and hunk in ours


def _collide(one: _Hunk, other: _Hunk) -> bool:
    if one == other:
        return False
    inside = any(a.start < b.start == b.end < a.end for a, b in ((one, other), (other, one)))  # an insertion among the other's lines
    return inside or max(one.start, other.start) < min(one.end, other.end)
