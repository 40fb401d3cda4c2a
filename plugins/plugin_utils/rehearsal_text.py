# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A rehearsal for the terminal: lines with their colours, step by step. Long diffs are cut; the page has all of them."""

from __future__ import annotations

from collections.abc import Iterator

from .rehearsal import FileChange, Rehearsal, StepChanges, is_added, is_removed

TITLE = "REHEARSAL"
WIDTH = 80
MOST_PATHS, MOST_LINES, MOST_CHARACTERS = 20, 60, 200  # of a step, of a diff, of a line

SIGNS = {"created": "+", "removed": "-", "moved": ">", "changed": "~"}
COLOURS = {"created": "green", "removed": "red", "moved": "cyan", "changed": "yellow"}

Line = tuple[str, "str | None"]


def title() -> str:
    return f"{TITLE} {'*' * (WIDTH - len(TITLE) - 1)}"


def lines(rehearsals: list[Rehearsal], *, page: str) -> list[Line]:
    """(text, colour). Hosts on which the same happened are shown once."""
    found: list[Line] = []
    for hosts, one in grouped(rehearsals):
        found += [("", None), (f"{', '.join(hosts)} : {summary(one)}", "bright blue")]
        found += _body(one)
    if page:
        found += [("", None), (f"All of it, as a page: {page}", None)]
    return found


def grouped(rehearsals: list[Rehearsal]) -> list[tuple[list[str], Rehearsal]]:
    groups: dict[object, tuple[list[str], Rehearsal]] = {}
    for one in rehearsals:
        key = (one.report.play, one.problem, one.host_changes, tuple(map(_key, one.steps)))
        groups.setdefault(key, ([], one))[0].append(one.report.host)
    return list(groups.values())


def _key(step: StepChanges) -> StepChanges:
    """Times are never the same on two hosts."""
    timeless = (one._replace(metadata=tuple(row for row in one.metadata if row[0] != "mtime")) for one in step.changes)
    return step._replace(changes=tuple(timeless))


def summary(one: Rehearsal) -> str:
    if one.problem:
        return one.problem
    added, removed = one.added_removed
    touching = sum(bool(step.changes) for step in one.steps)
    return f"{touching} of {len(one.steps)} steps would change {one.paths} paths (+{added} -{removed} lines)"


def _body(one: Rehearsal) -> Iterator[Line]:
    quiet = 0
    for step in one.steps:
        if step.changes or step.irreversible or step.undone:
            yield from _step(step)
        else:
            quiet += 1
    if quiet:
        yield "", None
        yield f"  {quiet} more step{'s' if quiet > 1 else ''} changed no files.", "dark gray"
    if one.host_changes:
        yield "", None
        yield "  Besides files:", None
        yield from ((f"    ~ {sentence}", "yellow") for sentence in one.host_changes)


def _step(step: StepChanges) -> Iterator[Line]:
    yield "", None
    yield f"  {step.n}. {step.task}", "bright blue"
    yield f"     {step.module}  {step.position}", "dark gray"
    for change in step.changes[:MOST_PATHS]:
        yield from _change(change)
    left = len(step.changes) - MOST_PATHS + step.more
    if left > 0:
        yield f"     and {left} more paths", "dark gray"
    for path in step.undone[:MOST_PATHS]:
        yield f"     taken back by the play itself: {path}", "dark gray"
    for sentence in step.irreversible:
        yield f"     cannot be undone: {sentence}", "red"


def _change(change: FileChange) -> Iterator[Line]:
    moved = f"  from {change.moved_from}" if change.moved_from else ""
    facts = _facts(change)
    yield f"   {SIGNS[change.kind]} {change.path}{moved}{f'  ({facts})' if facts else ''}", COLOURS[change.kind]
    if change.hidden:
        yield f"       content not shown: {change.hidden}", "dark gray"
    for line in change.diff[:MOST_LINES]:
        cut = line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}..."
        yield f"       {cut}", "green" if is_added(line) else "red" if is_removed(line) else "cyan" if line.startswith("@@") else None
    if len(change.diff) > MOST_LINES:
        yield f"       and {len(change.diff) - MOST_LINES} more lines", "dark gray"


def _facts(change: FileChange) -> str:
    """Times and sizes of a changed file go without saying."""
    if change.kind in ("created", "removed"):
        words = [before or after for name, before, after in change.metadata if name != "size"]
        return ", ".join(word for word in words if word)
    told = [(name, before, after) for name, before, after in change.metadata if name not in ("mtime", "size")]
    return ", ".join(f"{name} {before or 'none'} -> {after or 'none'}" for name, before, after in told)
