# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`acidctl diff TX [STEP]`: what it changed, as unified diffs of text and as lists of metadata.

Content stays hidden where it may be a secret, unless asked for by --secrets: of paths that a step with no_log touched, and of files that
an ordinary user of the host may not read.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .. import acl
from ..changes import Change, Changes, others_may_read
from ..errors import Usage, WrongState
from ..history import touched
from ..journal import Journal
from ..model import Transaction
from ..probes.registry import Probes
from ..states import COMMITTED, OPEN, UNDONE
from ..store import Store
from ..timeline import LARGEST, Side, Source, Timeline
from ..wanted import read
from .table import printable

# Why a content is not shown.
OF_NO_LOG, PRIVATE = "a step with no_log touched it", "not everybody may read it"

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
# What chattr(1) calls the flags.
_FLAGS = {0x10: "immutable", 0x20: "append-only", 0x40: "no dump", 0x80: "no atime", 0x4: "compressed", 0x800000: "no copy-on-write"}


def collect(
    journal: Journal, tx_id: str, step: int | None = None, *, state_dir: str, secrets: bool = False, every: bool = False
) -> dict[str, Any]:
    """{"tx", "state", "step", "changes": as `describe`, "host": [what else changed: units, mounts...], "undone": [paths]}. Of what has been
    undone, the paths are all there is.

    Raises WrongTransaction, Usage (no such step), WrongState (retention has ended), JournalDamaged.
    """
    tx = journal.get(tx_id)
    steps = [one for one in journal.steps(tx_id) if step is None or one.n == step]
    if step is not None and not steps:
        raise Usage(f"Transaction {tx_id} has no step {step}.", hint=f"`acidctl show {tx_id}` lists its steps.")
    directory = images_of(tx, state_dir)
    paths = touched(directory)
    undone = {path for one in steps if one.state == UNDONE for path in paths.get(one.n, ())}
    secret = dict.fromkeys((path for one in journal.steps(tx_id) if one.no_log for path in paths.get(one.n, ())), OF_NO_LOG)
    span = Span(0, tx.epoch, tx.created_ns) if step is None else Span(steps[0].epoch, steps[0].epoch, 0)
    with contextlib.ExitStack() as stores:
        changes = _changes(journal, tx, span, state_dir=state_dir, stores=stores, every=every)
        found = describe(changes, secret=secret, secrets=secrets)
    return {
        "tx": tx_id,
        "state": tx.state,
        "step": step,
        "changes": found,
        "host": host(journal, tx, {change["path"] for change in found}) if step is None else [],
        "undone": sorted(map(os.fsdecode, undone)),
    }


def images_of(tx: Transaction, state_dir: str) -> str:
    """The directory of its log. Raises WrongState."""
    directory = os.path.join(state_dir, "tx", tx.id)
    if not tx.images or not os.path.exists(os.path.join(directory, "log")):
        raise WrongState(
            f"The images of transaction {tx.id} are gone: its retention has ended.", hint=f"`acidctl show {tx.id}` is what is left."
        )
    return directory


class Span(NamedTuple):
    """Epochs, both included, and when the first of several began."""

    first: int
    last: int
    since_ns: int


def _changes(journal: Journal, tx: Transaction, span: Span, *, state_dir: str, stores: contextlib.ExitStack, every: bool) -> Changes:
    """What later transactions changed is theirs: their images say how this one left it."""
    directory = os.path.join(state_dir, "tx", tx.id)

    def source(one: Transaction, epoch: int) -> Source:
        store = Store(one.id, state=state_dir)
        stores.callback(store.close)
        return Source.of(os.path.join(state_dir, "tx", one.id), store, epoch=epoch)

    later = [one for one in journal.transactions() if one.token > tx.token and os.path.exists(os.path.join(state_dir, "tx", one.id, "log"))]
    after = [source(one, 0) for one in later]
    return Changes(
        read(directory, epoch=span.first, until=span.last + 1),
        Timeline([source(tx, span.first), *after]),
        Timeline([source(tx, span.last + 1), *after]),
        since_ns=span.since_ns,
        every=every,
    )


def host(journal: Journal, tx: Transaction, told: set[str]) -> list[str]:
    """What the probes saw change, as sentences: until the commit, or until now. Paths are not told twice."""
    if tx.state not in OPEN | {COMMITTED}:
        return []
    sentences = []
    for probe in Probes().before_files():
        images = journal.probes(tx.id, probe.name)
        if not images:
            continue
        left = images[-1][1] if tx.state == COMMITTED and len(images) > 1 else probe.capture()
        sentences += probe.compare(images[0][1], left)
    return [sentence for sentence in sentences if not any(sentence.startswith(f"{path!r} ") for path in told)]


def describe(changes: Iterable[Change], *, secret: Mapping[bytes, str], secrets: bool = False) -> list[dict[str, Any]]:
    """One dict a path: "path", "kind" (created, removed, changed, moved), "before", "after" (metadata), "differs" (their names),
    "diff" (unified diff lines, or null) and "hidden" (why there is none, or null). `secret`: paths whose content is hidden, and why."""
    return [_describe(change, secret, secrets=secrets) for change in changes]


def _describe(change: Change, secret: Mapping[bytes, str], *, secrets: bool) -> dict[str, Any]:
    before, after = change.before, change.after
    differs = [name for name in _metadata(before) | _metadata(after) if _metadata(before).get(name) != _metadata(after).get(name)]
    hidden = None if secrets else _secret(change, secret)
    diff, why = None, None
    if not _same_content(before, after):
        differs.append("content")
        diff, why = (None, hidden) if hidden else _unified(change)
    return {
        "path": os.fsdecode(change.path),
        "kind": _kind(change),
        "from": None if change.moved_from is None else os.fsdecode(change.moved_from),
        "before": _metadata(before) if before else None,
        "after": _metadata(after) if after else None,
        "differs": differs,
        "diff": diff,
        "hidden": why,
    }


def _kind(change: Change) -> str:
    if change.moved_from is not None:
        return "moved"
    if change.before is None:
        return "created"
    return "removed" if change.after is None else "changed"


def _secret(change: Change, secret: Mapping[bytes, str]) -> str | None:
    why = secret.get(change.path) or secret.get(change.moved_from or b"")
    if why is None and not all(others_may_read(change.path, side) for side in (change.before, change.after)):
        return PRIVATE
    return why


def _metadata(side: Side | None) -> dict[str, Any]:
    if side is None:
        return {}
    data: dict[str, Any] = {
        "type": _TYPES.get(stat.S_IFMT(side.mode), "unknown"),
        "mode": f"{stat.S_IMODE(side.mode):04o}",
        "owner": f"{side.uid}:{side.gid}",
        "mtime": _time(side.mtime_ns),
    }
    if stat.S_ISREG(side.mode):
        data["size"] = side.size
    if stat.S_ISLNK(side.mode) and side.data is not None:
        data["target"] = os.fsdecode(side.data)
    if side.rdev:
        data["device"] = f"{os.major(side.rdev)}:{os.minor(side.rdev)}"
    if side.xattrs:
        data["xattrs"] = dict(_xattr(os.fsdecode(name), value) for name, value in side.xattrs)
    if side.flags:
        data["flags"] = [name for bit, name in _FLAGS.items() if side.flags & bit] or [f"{side.flags:#x}"]
    return data


def _xattr(name: str, value: bytes) -> tuple[str, str]:
    """An ACL as getfacl writes it, text as text, the rest in hexadecimal."""
    readable = acl.text(value) if name in acl.NAMES else None
    if readable is None and value.isascii() and value.decode("ascii", "replace").isprintable():
        readable = value.decode("ascii")
    return name, value.hex() if readable is None else readable


def _time(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ns // 10**9)) + f".{ns % 10**9:09d} UTC"


def _same_content(before: Side | None, after: Side | None) -> bool:
    files = [side for side in (before, after) if side is not None and stat.S_ISREG(side.mode)]
    if not files:
        return True
    if len(files) == 1:
        return files[0].size == 0
    return files[0].size == files[1].size and files[0].data == files[1].data and files[0].mtime_ns == files[1].mtime_ns


def _unified(change: Change) -> tuple[list[str] | None, str | None]:
    """(diff, why there is none)."""
    texts = []
    for side in (change.before, change.after):
        if side is None or not stat.S_ISREG(side.mode):
            texts.append("")
        elif side.size > LARGEST:
            return None, f"larger than {LARGEST >> 20} MiB"
        elif side.data is None:
            return None, "its content is not known any more"
        elif b"\0" in side.data:
            return None, "not text"
        else:
            texts.append(side.data.decode(errors="surrogateescape"))
    name = os.fsdecode(change.path)
    old, new = ("a" + name if change.before else "/dev/null"), ("b" + name if change.after else "/dev/null")
    lines = list(difflib.unified_diff(_lines(texts[0]), _lines(texts[1]), old, new, lineterm=""))
    return (lines, None) if lines else (None, "the same content was written again")


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    if lines[-1]:
        lines[-1] += "\n\\ No newline at end of file"
    else:
        lines.pop()
    return lines


def lines_of(changes: Iterable[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for change in changes:
        moved = f" from {printable(change['from'])}" if change["from"] else ""
        lines.append(f"{change['kind']} {printable(change['path'])}{moved}")
        lines += _metadata_lines(change)
        if change["hidden"]:
            lines.append(f"  content not shown: {change['hidden']}")
        lines += [printable(part, keep="\t") for line in change["diff"] or () for part in line.split("\n")]
    return lines


def render(data: dict[str, Any]) -> str:
    lines = lines_of(data["changes"])
    lines += [printable(sentence) for sentence in data["host"]]
    if data["undone"]:
        lines += ["Undone since, so that only the paths are known:", *(f"  {printable(path)}" for path in data["undone"])]
    return "\n".join(lines or ["No difference."]) + "\n"


def _metadata_lines(change: dict[str, Any]) -> list[str]:
    before, after = change["before"] or {}, change["after"] or {}
    if change["kind"] == "created":
        return [f"  {_words(after)}"]
    if change["kind"] == "removed":
        return [f"  was {_words(before)}"]
    return [f"  {name}: {_word(before.get(name))} -> {_word(after.get(name))}" for name in change["differs"] if name != "content"]


def _words(data: dict[str, Any]) -> str:
    parts = [data["type"], data["mode"], data["owner"]]
    if "size" in data:
        parts.append(f"{data['size']} bytes")
    parts += [f"{name} {_word(data[name])}" for name in ("target", "device", "xattrs", "flags") if name in data]
    return ", ".join(parts)


def _word(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{printable(name)}={text}" for name, text in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return printable(str(value))
