# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""rtnetlink(7): dumps and changes of links, addresses, routes, rules and neighbours as messages, without any tool.

A dumped message says all that the kernel knows of an object, so that the same message, with another type, makes it again: that is how
`ip route save` and `restore` work too. Attributes are (type, value) pairs; numbers are from <linux/rtnetlink.h>.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

ACK, DUMP, REPLACE, EXCL, CREATE, APPEND = 0x4, 0x300, 0x100, 0x200, 0x400, 0x800
REQUEST = 0x1
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_INTERRUPTED = 0x10
_NESTED = 0x3FFF

Attributes = tuple[tuple[int, bytes], ...]


class Message(NamedTuple):
    """What an object is: the fixed part of its kind, and its attributes."""

    fixed: bytes
    attributes: Attributes

    def get(self, kind: int) -> bytes | None:
        return next((value for number, value in self.attributes if number == kind), None)

    def number(self, kind: int) -> int:
        """An unsigned attribute of 32 bits; 0 when it is missing."""
        value = self.get(kind)
        return int(struct.unpack("=I", value)[0]) if value is not None and len(value) == 4 else 0

    def without(self, *kinds: int) -> Message:
        return Message(self.fixed, tuple(pair for pair in self.attributes if pair[0] not in kinds))

    def encode(self) -> bytes:
        return self.fixed + pack(self.attributes)


def pack(attributes: Attributes) -> bytes:
    return b"".join(struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4) for kind, value in attributes)


def unpack(data: bytes) -> Attributes:
    """The nested flag of a type is dropped: older kernels do not set it."""
    found, at = [], 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found.append((kind & _NESTED, data[at + 4 : at + length]))
        at += length + (-length % 4)
    return tuple(found)


class Netlink:
    """A socket of its own; use as a context. OSError from the kernel's answers."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, 0))
        self._socket.settimeout(10.0)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def dump(self, kind: int, fixed: bytes, *, asking: Attributes = ()) -> list[Message]:
        """All objects of a kind; `fixed` is the request's own fixed part, as long as that of the answers. Again when it was interrupted."""
        for _attempt in range(5):
            found, whole = [], True
            for number, flags, body in self._ask(kind, DUMP, fixed + pack(asking)):
                whole = whole and not flags & _INTERRUPTED
                if number not in (_ERROR, _DONE):
                    found.append(Message(body[: len(fixed)], unpack(body[len(fixed) :])))
            if whole:
                break
        return found

    def change(self, kind: int, flags: int, message: Message) -> None:
        for _answer in self._ask(kind, flags | ACK, message.encode()):
            pass

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[tuple[int, int, bytes]]:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | REQUEST, self._sequence, 0) + body)
        while True:
            data = self._socket.recv(1 << 20)
            at = 0
            while at + _HEADER.size <= len(data):
                length, number, answered, sequence, _port = _HEADER.unpack_from(data, at)
                part = data[at + _HEADER.size : at + length]
                at += length + (-length % 4)
                if sequence != self._sequence:
                    continue
                if number in (_ERROR, _DONE):
                    code = -struct.unpack_from("=i", part)[0] if len(part) >= 4 else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                    yield number, answered, part
                    return
                yield number, answered, part
