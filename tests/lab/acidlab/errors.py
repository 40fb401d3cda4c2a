# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class LabError(Exception):
    """What failed, where, and what to do; printed as one line by the command."""


class CommandFailed(LabError):
    """A subprocess ended with a non-zero exit code."""

    def __init__(self, argv: list[str], rc: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: exit code {rc}: {output.strip()[-2000:]}")
        self.rc = rc
