# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's host name and NIS domain name. /etc/hostname is a file: the undo log or the probe `daemon_files` puts it back."""

from __future__ import annotations

from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe

_FILES = {"hostname": "/proc/sys/kernel/hostname", "domainname": "/proc/sys/kernel/domainname"}


class Hostname(Probe):
    name = "hostname"

    def capture(self) -> Image:
        return {key: _read(path) for key, path in _FILES.items()}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if circumstances.rebooted:
            return []
        return [f"The kernel's {key} is {now[key]!r}, and was {before[key]!r}." for key in _FILES if now[key] != before[key]]

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if circumstances.rebooted:
            return NOTHING
        outcome, now = NOTHING, self.capture()
        for key, path in _FILES.items():
            if now[key] == before[key]:
                continue
            if circumstances.left is not None and circumstances.left[key] == before[key]:
                outcome += Outcome(notes=(f"The {key} {now[key]!r} was set after the commit and is left.",))
                continue
            try:
                with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(before[key])
            except OSError as error:
                outcome += Outcome(failures=(f"The {key} is {now[key]!r}, and setting it to {before[key]!r} failed: {error.strerror}.",))
            else:
                outcome += Outcome(actions=(f"{key} is {before[key]!r} again",))
        return outcome


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")
