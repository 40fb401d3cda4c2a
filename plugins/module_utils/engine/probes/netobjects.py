# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What of the network is a setting, and what changes by itself: addresses, routes, rules, neighbours and next hops, by their
messages. Pure.

Numbers are from <linux/rtnetlink.h>, if_addr.h, fib_rules.h, neighbour.h, nexthop.h.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from .netlink import APPEND, CREATE, EXCL, REPLACE, Message, pack, unpack

_IFA_FLAGS, _IFA_CACHEINFO = 8, 6
_IFA_TEMPORARY, _IFA_PERMANENT = 0x01, 0x80
# Optimistic, duplicate detected, deprecated, tentative, stable privacy, manages temporary ones: the kernel's own bookkeeping.
_IFA_OWN_AFFAIRS = 0x04 | 0x08 | 0x20 | 0x40 | 0x100 | 0x800
_IFA_TENTATIVE = 0x40
_RTA_CACHEINFO, _RTA_EXPIRES, _RTA_MULTIPATH, _RTA_NH_ID = 12, 23, 9, 30
_RTA_HOP = (4, 5, _RTA_MULTIPATH, 18)
# Dead, link down, offloaded, trapped, unresolved, cloned, equalised, notify...: all but ONLINK and PERVASIVE.
_HOP_FLAGS = 0x02 | 0x04
_FROM_ADVERTISEMENT = 9
_NDA_CACHEINFO, _NDA_PROBES = 3, 4
_PERMANENT = 0x80
_NHA_RES_GROUP, _NHA_OP_FLAGS, _UNBALANCED_TIME = 12, 14, 4
_KERNELS = 2
_RTN_LOCAL, _RTN_ANYCAST = 2, 4


class Kind(NamedTuple):
    """How the objects of one kind are asked for, made and removed. `flags` for making, by address family (0: any)."""

    name: str
    get: int
    new: int
    delete: int
    families: tuple[int, ...]
    size: int
    flags: int

    def request(self, family: int) -> bytes:
        return bytes([family]) + bytes(self.size - 1)


ADDRESS = Kind("address", 22, 20, 21, (0,), 8, CREATE | EXCL)
NEXTHOP = Kind("next hop", 106, 104, 105, (0,), 8, CREATE | REPLACE)
ROUTE = Kind("route", 26, 24, 25, (socket.AF_INET, socket.AF_INET6), 12, CREATE | APPEND)
RULE = Kind("rule", 34, 32, 33, (socket.AF_INET, socket.AF_INET6), 12, CREATE | EXCL)
NEIGHBOUR = Kind("permanent neighbour", 30, 28, 29, (0,), 12, CREATE | REPLACE)
# In the order of making: what comes later may need what comes before.
KINDS = (ADDRESS, NEXTHOP, ROUTE, RULE, NEIGHBOUR)


def identity(kind: Kind, message: Message) -> Message | None:
    """What of an object is a setting; None for one that is not a setting at all. Two objects with the same identity are the same."""
    return _IDENTITIES[kind.name](message)


def _address(message: Message) -> Message | None:
    family, prefix, _flags, scope, index = struct.unpack("=BBBBI", message.fixed)
    flags = message.number(_IFA_FLAGS)
    if family == socket.AF_INET6 and (flags & _IFA_TEMPORARY or not flags & _IFA_PERMANENT):
        return None  # from a router's advertisement
    fixed = struct.pack("=BBBBI", family, prefix, 0, scope, index)
    kept = [(kind, value) for kind, value in message.attributes if kind not in (_IFA_CACHEINFO, _IFA_FLAGS)]
    return Message(fixed, tuple(sorted([*kept, (_IFA_FLAGS, struct.pack("=I", flags & ~_IFA_OWN_AFFAIRS))])))


def _route(message: Message) -> Message | None:
    family, dst, src, tos, table, protocol, scope, kind, flags = struct.unpack("=8BI", message.fixed)
    if protocol == _FROM_ADVERTISEMENT:
        return None
    fixed = struct.pack("=8BI", family, dst, src, tos, table, protocol, scope, kind, flags & _HOP_FLAGS)
    kept = []
    for number, value in message.attributes:
        if number == _RTA_MULTIPATH:
            value = _hops(value)
        if number not in (_RTA_CACHEINFO, _RTA_EXPIRES):
            kept.append((number, value))
    if any(number == _RTA_NH_ID for number, _value in kept):
        # The kernel shows the next hop's own contents beside its number, and does not take both.
        kept = [pair for pair in kept if pair[0] not in _RTA_HOP]
    return Message(fixed, tuple(sorted(kept)))


def _hops(value: bytes) -> bytes:
    """struct rtnexthop: length, flags, weight, link; each followed by attributes."""
    found, at = b"", 0
    while at + 8 <= len(value):
        length, flags, weight, index = struct.unpack_from("=HBBi", value, at)
        if length < 8:
            break
        body = value[at + 8 : at + length]
        found += struct.pack("=HBBi", length, flags & _HOP_FLAGS, weight, index) + body + bytes(-length % 4)
        at += length + (-length % 4)
    return found


def _rule(message: Message) -> Message | None:
    *head, flags = struct.unpack("=8BI", message.fixed)
    # FIB_RULE_INVERT alone is a setting.
    return Message(struct.pack("=8BI", *head, flags & 0x02), tuple(sorted(message.attributes)))


def _neighbour(message: Message) -> Message | None:
    family, index, state, flags, kind = struct.unpack("=BxxxiHBB", message.fixed)
    if not state & _PERMANENT or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    fixed = struct.pack("=BxxxiHBB", family, index, state, flags, kind)
    return Message(fixed, tuple(sorted(message.without(_NDA_CACHEINFO, _NDA_PROBES).attributes)))


def _nexthop(message: Message) -> Message | None:
    family, _scope, protocol, _reserved, flags = struct.unpack("=BBBBI", message.fixed)
    fixed = struct.pack("=BBBBI", family, 0, protocol, 0, flags & _HOP_FLAGS)
    resilient = message.get(_NHA_RES_GROUP)
    kept = list(message.without(_NHA_OP_FLAGS, _NHA_RES_GROUP).attributes)
    if resilient is not None:
        kept.append((_NHA_RES_GROUP, pack(tuple(pair for pair in unpack(resilient) if pair[0] != _UNBALANCED_TIME))))
    return Message(fixed, tuple(sorted(kept)))


_IDENTITIES = {
    ADDRESS.name: _address,
    NEXTHOP.name: _nexthop,
    ROUTE.name: _route,
    RULE.name: _rule,
    NEIGHBOUR.name: _neighbour,
}


def is_tentative(address: Message) -> bool:
    return bool(address.number(_IFA_FLAGS) & _IFA_TENTATIVE)


def with_lifetime(kind: Kind, message: Message, raw: Message) -> Message:
    """An address that was to expire gets the rest of its life again; one without a lifetime is for ever."""
    lifetime = raw.get(_IFA_CACHEINFO)
    if kind is not ADDRESS or lifetime is None or raw.number(_IFA_FLAGS) & _IFA_PERMANENT:
        return message
    return Message(message.fixed, (*message.attributes, (_IFA_CACHEINFO, lifetime)))


def comes_by_itself(kind: Kind, message: Message) -> bool:
    """Of IPv6, the routes to a host's own addresses come with these, and nobody else can make them: their metric is 0."""
    family, _dst, _src, _tos, _table, protocol, _scope, what = message.fixed[:8]
    return kind is ROUTE and family == socket.AF_INET6 and protocol == _KERNELS and what in (_RTN_LOCAL, _RTN_ANYCAST)


def has_gateway(message: Message) -> bool:
    """Of a route: it can only be made when the way to its gateway is there."""
    return any(message.get(number) is not None for number in (5, 18, _RTA_MULTIPATH, _RTA_NH_ID))


def link_of(kind: Kind, message: Message) -> int:
    """The index of the link that it is on; 0 where it is on none, or several."""
    if kind in (ADDRESS, NEIGHBOUR):
        return int(struct.unpack_from("=i", message.fixed, 4)[0])
    return message.number(4) if kind is ROUTE else message.number(5) if kind is NEXTHOP else 0


def removal(kind: Kind, message: Message) -> Message:
    """What has to be said to remove an object: next hops by their number alone."""
    if kind is NEXTHOP:
        return Message(bytes(8), tuple(pair for pair in message.attributes if pair[0] == 1))
    return message


_TABLES = {253: "default", 254: "main", 255: "local"}


def describe(kind: Kind, message: Message, links: dict[int, str]) -> str:
    """For people: near to what `ip` would say."""
    family = message.fixed[0]
    if kind is ADDRESS:
        address = message.get(2) or message.get(1)
        index = struct.unpack_from("=I", message.fixed, 4)[0]
        return f"address {_text(family, address)}/{message.fixed[1]} on {links.get(index, index)}"
    if kind is ROUTE:
        destination = message.get(1)
        parts = ["route", f"{_text(family, destination)}/{message.fixed[1]}" if destination is not None else "default"]
        if message.get(5) is not None:
            parts.append(f"via {_text(family, message.get(5))}")
        if message.get(4) is not None:
            parts.append(f"on {links.get(message.number(4), message.number(4))}")
        table = message.number(15) or message.fixed[4]
        return " ".join([*parts, f"in table {_TABLES.get(table, table)}"])
    if kind is RULE:
        table = message.number(15) or message.fixed[4]
        return f"rule {message.number(6)} to table {_TABLES.get(table, table)}"
    if kind is NEIGHBOUR:
        index = struct.unpack_from("=i", message.fixed, 4)[0]
        return f"neighbour {_text(family, message.get(1))} on {links.get(index, index)}"
    return f"next hop {message.number(1)}"


def _text(family: int, address: bytes | None) -> str:
    if address is None or len(address) != (4 if family == socket.AF_INET else 16):
        return "?"
    return socket.inet_ntop(family, address)
