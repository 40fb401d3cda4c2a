# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's host name and NIS domain name. /etc/hostname is a file: the undo log or the probe `etc` puts it back."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Collection

from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe

# The system calls, since /proc/sys is read-only in many containers.
_FIELDS = ("hostname", "domainname")


class Hostname(Probe):
    name = "hostname"
    is_watched = True

    def capture(self) -> Image:
        return {field: _read(field) for field in _FIELDS}

    def seen(self, image: Image) -> dict[str, object]:
        return dict(image)

    def adopt(self, image: Image, keys: Collection[str], other: Image) -> Image:
        return {**image, **{key: other[key] for key in keys}}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if circumstances.rebooted:
            return []
        left = circumstances.left or now
        return [
            f"The kernel's {field} is {now[field]!r}, and was {before[field]!r}."
            for field in _FIELDS
            if now[field] != before[field] and left[field] == now[field]
        ]

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if circumstances.rebooted:
            return NOTHING
        outcome, now, left = NOTHING, self.capture(), circumstances.left
        for field in _FIELDS:
            if now[field] == before[field]:
                continue
            if left is not None and (left[field] == before[field] or left[field] != now[field]):
                outcome += Outcome(notes=(f"The {field} {now[field]!r} was set after the commit and is left.",))
                continue
            try:
                _set(field, before[field])
            except OSError as error:
                sentence = f"The {field} is {now[field]!r}, and setting it to {before[field]!r} failed: {error.strerror}."
                outcome += Outcome(failures=(sentence,))
            else:
                outcome += Outcome(actions=(f"{field} is {before[field]!r} again",))
        return outcome


def _read(field: str) -> str:
    with open(f"/proc/sys/kernel/{field}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().rstrip("\n")


def _set(field: str, value: str) -> None:
    if field == "hostname":
        socket.sethostname(value)
        return
    data = os.fsencode(value)
    if ctypes.CDLL(None, use_errno=True).setdomainname(data, len(data)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
