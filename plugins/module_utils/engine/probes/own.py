# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A user's own probe: one command that writes a state to its stdout, and one that reads it from stdin and makes it so."""

from __future__ import annotations

from ..commands import run
from ..errors import ProbeFailed
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe
from .choice import OwnCommands

# Images lie in the journal.
LARGEST = 1 << 20


class Own(Probe):
    """After everything else: its commands may need the services that are back by then."""

    def __init__(self, commands: OwnCommands) -> None:
        self.name = commands.name
        self._commands = commands

    def capture(self) -> Image:
        command = self._commands.capture
        done = run(list(command), timeout=self._commands.timeout)
        if not done.ok:
            raise ProbeFailed(
                f"The capture of your probe {self.name} ({' '.join(command)}) failed: {done.complaint}.",
                hint="Run it on the host by hand; it must exit with 0.",
            )
        if len(done.out) > LARGEST:
            raise ProbeFailed(
                f"The capture of your probe {self.name} wrote {len(done.out)} bytes, and at most {LARGEST} are kept.",
                hint="Let it write a summary, or let the trace protect the files that hold the state.",
            )
        return {"output": done.out}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if before["output"] == now["output"] or _theirs(before, now, circumstances):
            return []
        return [f"What your probe {self.name} captures is not as before."]

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        now = self.capture()
        if before["output"] == now["output"]:
            return NOTHING
        if _theirs(before, now, circumstances):
            return Outcome(notes=(f"What your probe {self.name} captures was changed after the commit, and is left.",))
        done = run(list(self._commands.restore), timeout=self._commands.timeout, input=before["output"])
        if not done.ok:
            return Outcome(failures=(f"The restore of your probe {self.name} failed: {done.complaint}.",))
        return Outcome(actions=(f"your probe {self.name} has restored its state",))


def _theirs(before: Image, now: Image, circumstances: Circumstances) -> bool:
    left = circumstances.left
    return left is not None and (left["output"] == before["output"] or left["output"] != now["output"])
