# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All states of a transaction, of a step and of a compensation, and every legal transition between them.

`check` is asked by the journal inside the SQL transaction that writes the new state, so no caller can skip it.
docs/states.md is the output of `markdown()`; a test compares the two.
"""

from __future__ import annotations

import sys

from .errors import WrongState

ACTIVE = "ACTIVE"
WAITING_REBOOT = "WAITING_REBOOT"
DOOMED = "DOOMED"
REWINDING = "REWINDING"
COMMITTING = "COMMITTING"
PREPARED = "PREPARED"
COMMITTED = "COMMITTED"
ABORTING = "ABORTING"
ABORTED = "ABORTED"
UNDO_FAILED = "UNDO_FAILED"
RESOLVED = "RESOLVED"

STARTED = "STARTED"
SEALED = "SEALED"
UNDONE = "UNDONE"

RECORDED = "RECORDED"
RUNNING_NOW = "RUNNING"
PAID = "PAID"
FAILED = "FAILED"
OWED = "OWED"

# UNDO_FAILED is both a transaction's state and a step's.
TRANSACTION_STATES = (
    ACTIVE,
    WAITING_REBOOT,
    REWINDING,
    COMMITTING,
    DOOMED,
    PREPARED,
    COMMITTED,
    ABORTING,
    ABORTED,
    UNDO_FAILED,
    RESOLVED,
)
STEP_STATES = (STARTED, SEALED, UNDONE, UNDO_FAILED)
COMPENSATION_STATES = (RECORDED, RUNNING_NOW, PAID, FAILED, OWED)

# A host has at most one transaction in these (invariant I6).
OPEN = frozenset({ACTIVE, WAITING_REBOOT, REWINDING, COMMITTING, DOOMED, PREPARED, ABORTING})
# Only in these may a step start.
RUNNING = frozenset({ACTIVE})

TRANSACTION_TRANSITIONS = frozenset(
    {
        (ACTIVE, PREPARED),
        (ACTIVE, COMMITTED),
        (ACTIVE, WAITING_REBOOT),
        (ACTIVE, REWINDING),
        (ACTIVE, COMMITTING),
        (ACTIVE, DOOMED),
        (ACTIVE, ABORTING),
        (WAITING_REBOOT, ACTIVE),
        (WAITING_REBOOT, DOOMED),
        (WAITING_REBOOT, ABORTING),
        (REWINDING, ACTIVE),
        (REWINDING, DOOMED),
        (REWINDING, ABORTING),
        (COMMITTING, COMMITTED),
        (COMMITTING, ACTIVE),
        (COMMITTING, DOOMED),
        (COMMITTING, ABORTING),
        (DOOMED, ABORTING),
        (PREPARED, COMMITTED),
        (PREPARED, ABORTING),
        (COMMITTED, ABORTING),
        (ABORTING, ABORTED),
        (ABORTING, UNDO_FAILED),
        (UNDO_FAILED, ABORTED),
        (UNDO_FAILED, RESOLVED),
    }
)

STEP_TRANSITIONS = frozenset(
    {
        (STARTED, SEALED),
        (STARTED, UNDONE),
        (STARTED, UNDO_FAILED),
        (SEALED, UNDONE),
        (SEALED, UNDO_FAILED),
        (UNDO_FAILED, UNDONE),
    }
)

# PAID is final: a compensation succeeds at most once. A late success counts, whatever was thought of it meanwhile.
COMPENSATION_TRANSITIONS = frozenset(
    {
        (RECORDED, RUNNING_NOW),
        (RECORDED, OWED),
        (RUNNING_NOW, PAID),
        (RUNNING_NOW, FAILED),
        (RUNNING_NOW, OWED),
        (FAILED, RUNNING_NOW),
        (FAILED, PAID),
        (OWED, RUNNING_NOW),
        (OWED, PAID),
    }
)

MEANING = {
    ACTIVE: "steps may run; the lease ticks",
    WAITING_REBOOT: "a planned reboot; recovery at boot leaves it alone until its own deadline",
    REWINDING: "an undo to a savepoint is under way; no step and no commit before it has come to its end, whoever asked for it",
    COMMITTING: "all is being put onto the disk; no step starts. Where the agent dies in it, nobody knows what the disk took: doomed",
    DOOMED: "cannot be trusted to commit (agent death, fsync error, unshimmed step); only undo is left",
    PREPARED: "can go either way; the lease no longer moves it, only the decision or a person does",
    COMMITTED: "kept; images stay until retention ends, and until then a rollback can be asked for",
    ABORTING: "undo under way, restartable at any point",
    ABORTED: "exact, and verified",
    UNDO_FAILED: "the undo says what differs; new transactions are blocked until `rollback` again or `resolve`",
    RESOLVED: "a person looked at what differed and took it on",
    STARTED: "the step runs, or died: STARTED in a transaction that is undone is a torn step",
    SEALED: "the step ended and its after-digests are in the journal",
    UNDONE: "what the step changed is as before",
    RECORDED: "stored before its step ran; nothing has been undone yet",
    RUNNING_NOW: "handed out; whoever runs it has a claim with an end, or waits before the next attempt",
    PAID: "it has succeeded, and never runs again",
    FAILED: "its attempts are used up; the next rollback or recover tries it again",
    OWED: "nobody was there who could run it; `acid.host.recover` pays it",
}


def check(old: str, new: str) -> bool:
    """True when a transaction may go from old to new, False when it is there already (asking twice is no error).

    Raises WrongState otherwise.
    """
    return _check("transaction", TRANSACTION_STATES, TRANSACTION_TRANSITIONS, old, new)


def check_step(old: str, new: str) -> bool:
    """Like `check`, for a step."""
    return _check("step", STEP_STATES, STEP_TRANSITIONS, old, new)


def check_compensation(old: str, new: str) -> bool:
    """Like `check`, for a compensation."""
    return _check("compensation", COMPENSATION_STATES, COMPENSATION_TRANSITIONS, old, new)


def targets(old: str) -> tuple[str, ...]:
    """The states that a transaction can go to from old, in the order of TRANSACTION_STATES."""
    return tuple(new for new in TRANSACTION_STATES if (old, new) in TRANSACTION_TRANSITIONS)


def _check(what: str, states: tuple[str, ...], legal: frozenset[tuple[str, str]], old: str, new: str) -> bool:
    for state in (old, new):
        if state not in states:
            raise WrongState(f"{state!r} is not a state of a {what}.", hint=f"A {what} is {', '.join(states)}.")
    if old == new:
        return False
    if (old, new) not in legal:
        allowed = ", ".join(s for s in states if (old, s) in legal) or "nothing: it has ended"
        raise WrongState(f"A {what} cannot go from {old} to {new}.", hint=f"From {old} it can go to {allowed}.")
    return True


def markdown() -> str:
    """The text of docs/states.md."""
    lines = [
        "# States",
        "",
        "Generated: `PYTHONPATH=plugins/module_utils python3 -m engine.states > docs/states.md`. A test fails when it is out of date.",
        "",
        "## Transaction",
        "",
    ]
    lines += _table(TRANSACTION_STATES, TRANSACTION_TRANSITIONS)
    lines += ["", f"Open (a host has at most one): {', '.join(s for s in TRANSACTION_STATES if s in OPEN)}.", ""]
    lines += _diagram(TRANSACTION_STATES, TRANSACTION_TRANSITIONS)
    lines += ["", "## Step", ""]
    lines += _table(STEP_STATES, STEP_TRANSITIONS)
    lines += [""]
    lines += _diagram(STEP_STATES, STEP_TRANSITIONS)
    lines += ["", "## Compensation", ""]
    lines += _table(COMPENSATION_STATES, COMPENSATION_TRANSITIONS)
    lines += [""]
    lines += _diagram(COMPENSATION_STATES, COMPENSATION_TRANSITIONS)
    return "\n".join(lines) + "\n"


def _table(states: tuple[str, ...], legal: frozenset[tuple[str, str]]) -> list[str]:
    rows = ["| state | meaning | goes to |", "|---|---|---|"]
    for state in states:
        meaning = MEANING[state]
        if state == UNDO_FAILED and states is STEP_STATES:
            meaning = "something that the step changed is not as before"
        rows.append(f"| {state} | {meaning} | {', '.join(s for s in states if (state, s) in legal)} |")
    return rows


def _diagram(states: tuple[str, ...], legal: frozenset[tuple[str, str]]) -> list[str]:
    arrows = [f"    {old} --> {new}" for old in states for new in states if (old, new) in legal]
    ends = [f"    {old} --> [*]" for old in states if not any(pair[0] == old for pair in legal)]
    return ["```mermaid", "stateDiagram-v2", f"    [*] --> {states[0]}", *arrows, *ends, "```"]


if __name__ == "__main__":
    sys.stdout.write(markdown())
