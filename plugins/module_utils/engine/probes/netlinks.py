# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network interfaces by their messages: what of one is a setting, and the messages that make it again or set it back. Pure.

Numbers are from <linux/if_link.h> and <linux/if.h>.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from .netlink import Message, pack, unpack

GET, NEW, DELETE = 18, 16, 17
_FIXED = struct.Struct("=BxHiII")
REQUEST = bytes(_FIXED.size)
# Without the counters.
ASKING = ((29, struct.pack("=I", 8)),)

_ADDRESS, _NAME, _MTU, _LINK, _MASTER, _QUEUE, _INFO, _ALIAS, _GROUP, _NETNS = 1, 3, 4, 5, 10, 13, 18, 20, 27, 37
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
UP = 0x1
# UP, DEBUG, NOARP, PROMISC, ALLMULTI, MULTICAST, DYNAMIC: what `ip link set` sets.
_SETTABLE = UP | 0x4 | 0x80 | 0x100 | 0x200 | 0x1000 | 0x8000
# Of a bridge: ids, root, cost, timers, and the querier's state are found out, not set; of a macvlan: counts.
_FOUND_OUT = {"bridge": frozenset((10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 48)), "macvlan": frozenset((6, 8))}
# Kinds whose settings stay as they were set; others are compared without them.
_COMPARED = frozenset(("bridge", "vlan", "vxlan", "macvlan", "ipvlan", "vrf"))


class Link(NamedTuple):
    """`data` holds a kind's own settings, in hex as they came. `away`: its other end or the link beneath it is in another namespace."""

    ifindex: int
    name: str
    kind: str
    flags: int
    mtu: int
    queue: int
    address: str
    group: int
    alias: str
    master: int
    parent: int
    away: bool
    data: str

    @property
    def key(self) -> str:
        return f"{self.ifindex} {self.kind}"

    @property
    def settings(self) -> tuple[Any, ...]:
        """What is compared."""
        return (*self[1:10], self.data if self.kind in _COMPARED else "")

    @property
    def removable(self) -> bool:
        """Hardware cannot be removed, and who holds the other end in a namespace of his own is nobody's step: those have ended."""
        return bool(self.kind) and not self.away


def parse(message: Message) -> Link:
    _family, _type, index, flags, _change = _FIXED.unpack(message.fixed)
    info = dict(unpack(message.get(_INFO) or b""))
    kind = info.get(_INFO_KIND, b"").rstrip(b"\0").decode()
    left_out = _FOUND_OUT.get(kind, frozenset())
    data = tuple(pair for pair in unpack(info.get(_INFO_DATA, b"")) if pair[0] not in left_out)
    return Link(
        index,
        _text(message.get(_NAME)),
        kind,
        flags & _SETTABLE,
        message.number(_MTU),
        message.number(_QUEUE),
        (message.get(_ADDRESS) or b"").hex(),
        message.number(_GROUP),
        _text(message.get(_ALIAS)),
        message.number(_MASTER),
        message.number(_LINK),
        message.get(_NETNS) is not None,
        pack(data).hex(),
    )


def _text(value: bytes | None) -> str:
    return (value or b"").split(b"\0")[0].decode("utf-8", "surrogateescape")


def removal(link: Link) -> Message:
    return Message(_FIXED.pack(0, 0, link.ifindex, 0, 0), ())


def creations(link: Link, peer: Link | None) -> Iterator[Message]:
    """Messages to be tried in turn, with the same index, so that what refers to it stays right. `peer`: the other end of a veth pair.

    Not every kind takes all the settings that it shows: then without those that are off, without one more, with the first one (a mode, a
    number), or none; the rest `changes` sets, where it can.
    """
    parent = ((_LINK, struct.pack("=I", link.parent)),) if link.parent and link.kind != "veth" else ()
    every = unpack(bytes.fromhex(link.data))
    if link.kind == "veth" and peer is not None:
        every = ((_VETH_PEER, _FIXED.pack(0, 0, peer.ifindex, 0, 0) + pack(_own(peer))),)
    on = tuple(pair for pair in every if any(pair[1]))
    but_one = (on[:at] + on[at + 1 :] for at in reversed(range(len(on))))
    for settings in dict.fromkeys((every, on, *but_one, every[:1], ())):
        info = pack(((_INFO_KIND, link.kind.encode() + b"\0"), (_INFO_DATA, pack(settings))))
        yield Message(_FIXED.pack(0, 0, link.ifindex, 0, 0), (*_own(link), *parent, (_INFO, info)))


def _own(link: Link) -> tuple[tuple[int, bytes], ...]:
    address = ((_ADDRESS, bytes.fromhex(link.address)),) if link.address and link.kind not in ("gre", "ipip", "sit", "tun") else ()
    return ((_NAME, link.name.encode("utf-8", "surrogateescape") + b"\0"), (_MTU, struct.pack("=I", link.mtu)), *address)


def changes(old: Link, new: Link) -> Iterator[Message]:
    """One message for each setting of `new` that is not as in `old`: where the kernel refuses one, the others come back all the same."""

    def say(*attributes: tuple[int, bytes], flags: int = 0, mask: int = 0) -> Message:
        return Message(_FIXED.pack(0, 0, new.ifindex, flags, mask), attributes)

    def number(value: int) -> bytes:
        return struct.pack("=I", value)

    if new.name != old.name:
        if new.flags & UP:
            # Before Linux 6.2 a link that is up keeps its name.
            yield say(flags=0, mask=UP)
        yield say((_NAME, old.name.encode("utf-8", "surrogateescape") + b"\0"))
        if new.flags & UP:
            yield say(flags=UP, mask=UP)
    if new.master != old.master:
        yield say((_MASTER, number(old.master)))
    if new.address != old.address:
        yield say((_ADDRESS, bytes.fromhex(old.address)))
    if new.mtu != old.mtu:
        yield say((_MTU, number(old.mtu)))
    if new.queue != old.queue:
        yield say((_QUEUE, number(old.queue)))
    if new.group != old.group:
        yield say((_GROUP, number(old.group)))
    if new.alias != old.alias:
        yield say((_ALIAS, old.alias.encode("utf-8", "surrogateescape")))
    if old.kind in _COMPARED and new.data != old.data:
        present = unpack(bytes.fromhex(new.data))
        for pair in unpack(bytes.fromhex(old.data)):
            if pair not in present:
                yield say((_INFO, pack(((_INFO_KIND, old.kind.encode() + b"\0"), (_INFO_DATA, pack((pair,)))))))
    mask = (new.flags ^ old.flags) & _SETTABLE
    if mask:
        yield say(flags=old.flags & mask, mask=mask)


def what(old: Link | None, new: Link | None) -> str:
    """The difference, as a sentence's end; empty when there is none."""
    if old is None or new is None:
        return "is there, and was not" if old is None else "is gone"
    fields = ("name", "kind", "flags", "mtu", "queue", "address", "group", "alias", "master", "settings of its kind")
    found = [field for field, was, now in zip(fields, old.settings, new.settings) if was != now]
    return f"has another {', '.join(found)}" if found else ""
