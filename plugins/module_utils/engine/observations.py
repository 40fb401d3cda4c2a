# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the trace of a transaction saw that people must know of: collected while a step runs, put into the journal when it is sealed.

What `irreversible: deny` refused is told twice: to the controller, for the step's own result, and by refusing whatever comes next until the
controller has asked.
"""

from __future__ import annotations

from .errors import Denied
from .journal import Journal
from .model import ACTED, ASKED, IRREVERSIBLE
from .trace.subjects import Observed

_ALIKE = 8


class Observations:
    """Of one transaction. The caller holds its lock."""

    def __init__(self) -> None:
        self._seen: list[Observed] = []
        self._denied: list[str] = []  # sentences that nobody has been told yet
        self._asked: set[int] = set()
        self._acted: set[int] = set()

    def add(self, seen: Observed) -> None:
        if seen.kind == ACTED:
            self._acted.add(seen.step)
            return
        if seen.kind == ASKED:
            self._asked.add(seen.step)
        self._seen.append(seen)

    def acts(self, step: int) -> tuple[bool, bool]:
        """Whether the step has made a call that changes what probes look at, and whether it has asked a daemon."""
        return step in self._acted, step in self._asked

    def failed(self, step: int, reason: str) -> None:
        """No image could be taken: the call was answered EIO, and nothing happened."""
        seen = Observed(IRREVERSIBLE, "refused with EIO, nothing changed: " + reason, step)
        if seen not in self._seen[-_ALIKE:]:  # where there is no space, a program may be refused again and again
            self._seen.append(seen)

    def denied(self, step: int, what: str, *, task: str) -> None:
        """The call is answered EPERM. A program may well ignore that: then the next step and the commit are refused."""
        sentence = "%s cannot be undone, and 'irreversible: deny' forbids it: %sthe call was refused, nothing changed." % (
            what,
            "in the step '%s' " % task if task else "",
        )
        if sentence not in self._denied:
            self._denied.append(sentence)
            self._seen.append(Observed(IRREVERSIBLE, "refused with EPERM, nothing changed: " + what, step))

    def ask_denied(self) -> list[str]:
        """What was refused since the last time."""
        found, self._denied = self._denied, []
        return found

    def refuse_denied(self) -> None:
        if self._denied:
            raise Denied(" ".join(self._denied), hint="Its program went on all the same. 'irreversible: warn' lets it happen.")

    def write(self, journal: Journal, tx: str) -> None:
        for seen in self._seen:
            journal.note(tx, seen.kind, seen.text, step=seen.step or None)
        self._seen.clear()
