# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one tree of errors that the engine reports to people and to the controller.

Each class has a `kind` (the "class" in JSON) and an `exit_code` of its own, so that a script can tell them apart. The message
says what is wrong and where; the hint says what to do about it. Both are part of the public interface: kinds and codes are never reused.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AcidError(Exception):
    """What went wrong (`msg`) and what the user can do (`hint`, may be empty)."""

    kind: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 10

    def __init__(self, msg: str, *, hint: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.msg} {self.hint}".rstrip()

    def to_json(self) -> dict[str, str]:
        """{"class", "msg", "hint"}, as every `acidctl --json` prints it under "error"."""
        return {"class": self.kind, "msg": self.msg, "hint": self.hint}


class Usage(AcidError):
    """An unknown option, a malformed request."""

    kind = "usage"
    exit_code = 11


class NotRoot(AcidError):
    """The engine needs root (uid 0 with its capabilities) on the host."""

    kind = "not-root"
    exit_code = 12


class KernelTooOld(AcidError):
    """Older than Linux 5.10, or a feature of the trace is compiled out."""

    kind = "kernel-too-old"
    exit_code = 13


class MissingPython(AcidError):
    """The host's Python is too old, or has no sqlite3 or ctypes."""

    kind = "missing-python"
    exit_code = 14


class EngineTampered(AcidError):
    """A file of the installed engine is not what its MANIFEST says."""

    kind = "engine-tampered"
    exit_code = 15


class Busy(AcidError):
    """Another transaction is open on this host (invariant I6); the message says whose and since when."""

    kind = "busy"
    exit_code = 16


class NoTransaction(AcidError):
    """There is no open transaction."""

    kind = "no-transaction"
    exit_code = 17


class WrongTransaction(AcidError):
    """The journal knows no transaction of that id, or it is not the open one."""

    kind = "wrong-transaction"
    exit_code = 18


class StaleToken(AcidError):
    """The caller's fencing token is not the transaction's: somebody else owns it by now (invariant I6)."""

    kind = "stale-token"
    exit_code = 19


class WrongState(AcidError):
    """The transaction or step is in a state from which the requested one cannot be reached."""

    kind = "wrong-state"
    exit_code = 20


class Doomed(AcidError):
    """The transaction cannot be trusted to commit; only undo is left."""

    kind = "doomed"
    exit_code = 21


class JournalDamaged(AcidError):
    """The journal or an undo log fails its checks (invariant I7). No path has been touched."""

    kind = "journal-damaged"
    exit_code = 22


class NotOnDisk(AcidError):
    """A file system did not take a before-image: what else it was given may be lost too."""

    kind = "not-on-disk"
    exit_code = 35


class JournalUnwritable(AcidError):
    """The journal's file system is full, read-only, or failed to write."""

    kind = "journal-unwritable"
    exit_code = 23


class StoreFull(AcidError):
    """No room for a before-image: the change was refused."""

    kind = "store-full"
    exit_code = 24


class UndoFailed(AcidError):
    """Undo ended and the host differs from before; the summary says where."""

    kind = "undo-failed"
    exit_code = 25


class Drift(AcidError):
    """Somebody else changed later what the transaction had left (invariant I5)."""

    kind = "drift"
    exit_code = 26


class TraceUnavailable(AcidError):
    """The seccomp listener cannot be had: a listener is installed already, ptrace_scope, a container's own filter."""

    kind = "trace-unavailable"
    exit_code = 27


class AgentUnavailable(AcidError):
    """The agent does not answer on its socket."""

    kind = "agent-unavailable"
    exit_code = 28


class SchemaTooNew(AcidError):
    """The journal was written by a newer engine."""

    kind = "schema-too-new"
    exit_code = 29


class Blocked(AcidError):
    """A transaction in UNDO_FAILED blocks new ones until it is rolled back or resolved by a person."""

    kind = "blocked"
    exit_code = 30


class ProbeFailed(AcidError):
    """A probe cannot see the state that it is for, so that it could not be undone: there is no transaction then."""

    kind = "probe-failed"
    exit_code = 31


class Denied(AcidError):
    """No image can undo this, and the transaction's `irreversible: deny` forbids it: it was not let happen."""

    kind = "denied"
    exit_code = 33


class FormatUnknown(AcidError):
    """An engine of another version kept the transaction's images, in a way that this one cannot undo. Nothing has been touched."""

    kind = "format-unknown"
    exit_code = 34


class StepRefused(AcidError):
    """The step may not run. 97 is what the controller's hook looks for: nothing of the step has run."""

    kind = "step-refused"
    exit_code = 97


def _tree(root: type[AcidError]) -> dict[str, type[AcidError]]:
    found = {root.kind: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


BY_KIND: dict[str, type[AcidError]] = _tree(AcidError)


def from_json(data: dict[str, Any]) -> AcidError:
    """The error that `to_json` wrote; an unknown class (a newer peer's) becomes a plain AcidError that names it."""
    kind = str(data.get("class", ""))
    msg = str(data.get("msg", ""))
    cls = BY_KIND.get(kind)
    if cls is None:
        return AcidError(f"{kind}: {msg}", hint=str(data.get("hint", "")))
    return cls(msg, hint=str(data.get("hint", "")))
