# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Links, addresses, routes, rules, next hops and permanent neighbours, by rtnetlink: no tool is needed, and what the kernel said of an
object makes it again.

Left out: what the kernel learns by itself (router advertisements, temporary addresses, neighbours found by ARP), hardware that comes and
goes, queueing disciplines, and links into other network namespaces: those are containers'.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from . import netlinks
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe, ours
from .netlink import CREATE, EXCL, Message, Netlink, pack
from .netlinks import Link
from .netobjects import (
    ADDRESS,
    KINDS,
    ROUTE,
    Kind,
    comes_by_itself,
    describe,
    has_gateway,
    identity,
    is_tentative,
    link_of,
    removal,
    with_lifetime,
)

# Seconds in which duplicate address detection ends (RFC 4862: one probe, one second).
_DAD = 3.0
_ROUNDS = 4
Objects = dict[Message, Message]


class Network(Probe):
    name = "network"
    is_watched = True

    def __init__(self) -> None:
        self._why: dict[str, str] = {}

    def capture(self) -> Image:
        with Netlink() as netlink:
            links = [netlinks.parse(message) for message in netlink.dump(netlinks.GET, netlinks.REQUEST, asking=netlinks.ASKING)]
            objects = {kind.name: [_to_text(message) for message in _dump(netlink, kind)] for kind in KINDS}
        return {"links": [list(link) for link in links], **objects}

    def seen(self, image: Image) -> dict[str, object]:
        links = {f"link {link.key}": link.settings for link in _links(image).values()}
        return {**links, **{_name(kind, message): True for kind in KINDS for message in _load(kind, image)}}

    def adopt(self, image: Image, keys: Collection[str], other: Image) -> Image:
        def mixed(named: Callable[[Image], dict[str, Any]]) -> list[Any]:
            was, then = named(image), named(other)
            kept = [then.get(key) if key in keys else value for key, value in was.items()]
            kept += [value for key, value in then.items() if key in keys and key not in was]
            return [value for value in kept if value is not None]

        adopted: Image = {"links": mixed(lambda one: {f"link {link.key}": list(link) for link in _links(one).values()})}
        for kind in KINDS:
            adopted[kind.name] = mixed(functools.partial(_texts, kind))
        return adopted

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if circumstances.rebooted:
            return []
        left = circumstances.left
        was, is_now = _links(before), _links(now)
        mine = ours(_settings(was), _settings(is_now), None if left is None else _settings(_links(left)))
        names = {link.ifindex: link.name for link in (*was.values(), *is_now.values())}
        found = {
            f"The link {(was.get(key) or is_now[key]).name}": netlinks.what(was.get(key), is_now.get(key))
            for key in mine.ours
            if (is_now[key].removable if key not in was else key in is_now or not was[key].away)
        }
        for kind in KINDS:
            born, gone = _moved(kind, before, now, left)
            gone = _without_lost(kind, gone, was, is_now)
            found.update({_sentence(kind, message, names): "is there, and was not" for message in born})
            found.update({_sentence(kind, message, names): "is gone" for message in gone})
        return [f"{subject} {difference}{self._reason(subject)}." for subject, difference in found.items()]

    def _reason(self, subject: str) -> str:
        why = self._why.get(subject)
        return f", and cannot be brought back: {why}" if why else ""

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if circumstances.rebooted:
            return NOTHING
        self._why.clear()
        with Netlink() as netlink:
            outcome = self._converge_links(netlink, before, circumstances)
            for kind in reversed(KINDS):
                outcome += self._remove(netlink, kind, before, circumstances)
            for kind in KINDS:
                outcome += self._make(netlink, kind, before, circumstances)
            _await_detection(netlink, before)
        return outcome

    def _converge_links(self, netlink: Netlink, before: Image, circumstances: Circumstances) -> Outcome:
        was, now = _links(before), self._links_now(netlink)
        left = None if circumstances.left is None else _settings(_links(circumstances.left))
        mine = ours(_settings(was), _settings(now), left)
        outcome = Outcome(
            notes=tuple(f"The link {(was.get(key) or now[key]).name} was changed after the commit, and is left." for key in mine.theirs)
        )
        for key in mine.ours:
            if key not in was:
                outcome += self._remove_link(netlink, now[key])
        missing = [was[key] for key in mine.ours if key not in now and not was[key].away]
        for _round in range(len(missing)):
            # A link may lie on another one that has to be made first.
            present = {link.ifindex for link in self._links_now(netlink).values()}
            for link in [link for link in missing if link.ifindex not in present]:
                outcome += self._create_link(netlink, link, missing)
        now = self._links_now(netlink)
        for key in mine.ours:
            if key in was and key in now:
                outcome += self._alter_link(netlink, was[key], now[key])
        return outcome

    def _links_now(self, netlink: Netlink) -> dict[str, Link]:
        messages = netlink.dump(netlinks.GET, netlinks.REQUEST, asking=netlinks.ASKING)
        return {link.key: link for link in map(netlinks.parse, messages)}

    def _remove_link(self, netlink: Netlink, link: Link) -> Outcome:
        if not link.removable:
            return Outcome(notes=(f"The link {link.name} came meanwhile; it is hardware or another namespace's, and is left.",))
        if not self._say(netlink, netlinks.DELETE, 0, netlinks.removal(link), f"The link {link.name}"):
            return NOTHING
        return Outcome(actions=(f"removed link {link.name}",))

    def _create_link(self, netlink: Netlink, link: Link, missing: list[Link]) -> Outcome:
        subject = f"The link {link.name}"
        if not link.kind:
            self._why[subject] = "it is hardware, or has gone to another network namespace"
            return NOTHING
        peer = next((other for other in missing if other.kind == link.kind == "veth" and other.ifindex == link.parent), None)
        made = any(self._say(netlink, netlinks.NEW, CREATE | EXCL, message, subject) for message in netlinks.creations(link, peer))
        return Outcome(actions=(f"made link {link.name} again",)) if made else NOTHING

    def _alter_link(self, netlink: Netlink, old: Link, new: Link) -> Outcome:
        said = [self._say(netlink, netlinks.NEW, 0, message, f"The link {old.name}") for message in netlinks.changes(old, new)]
        return Outcome(actions=(f"set link {old.name} back",)) if any(said) else NOTHING

    def _remove(self, netlink: Netlink, kind: Kind, before: Image, circumstances: Circumstances) -> Outcome:
        born, _gone = _moved(kind, before, _only(netlink, kind), circumstances.left)
        names = {link.ifindex: link.name for link in self._links_now(netlink).values()}
        removed = [
            message for message in born if self._say(netlink, kind.delete, 0, removal(kind, message), _sentence(kind, message, names))
        ]
        return Outcome(actions=tuple(f"removed {describe(kind, message, names)}" for message in removed))

    def _make(self, netlink: Netlink, kind: Kind, before: Image, circumstances: Circumstances) -> Outcome:
        was, is_now = _links(before), self._links_now(netlink)
        names = {link.ifindex: link.name for link in was.values()}
        raw = _load(kind, before)
        made: list[Message] = []
        for _round in range(_ROUNDS):
            _born, gone = _moved(kind, before, _only(netlink, kind), circumstances.left)
            wanted = sorted(
                (message for message in _without_lost(kind, gone, was, is_now) if not comes_by_itself(kind, message)),
                key=lambda message: kind is ROUTE and has_gateway(message),
            )
            done = [
                message
                for message in wanted
                if self._say(netlink, kind.new, kind.flags, with_lifetime(kind, message, raw[message]), _sentence(kind, message, names))
            ]
            made += done
            if not done or len(done) == len(wanted):
                break
        if kind is ADDRESS and circumstances.left is None:
            self._order(netlink, before)
        return Outcome(actions=tuple(f"made {describe(kind, message, names)} again" for message in dict.fromkeys(made)))

    def _order(self, netlink: Netlink, before: Image) -> None:
        """The first address of a network is its primary one: where another has become it, the later ones go and come again in order."""
        was, now = (_by_link(_load(ADDRESS, image)) for image in (before, _only(netlink, ADDRESS)))
        for index, wanted in was.items():
            present = now.get(index, [])
            if present == wanted or sorted(present) != sorted(wanted):
                continue
            same = next(at for at, (one, other) in enumerate(zip(wanted, present)) if one != other)
            raw = _load(ADDRESS, before)
            for message in reversed(present[same:]):
                self._say(netlink, ADDRESS.delete, 0, message, "")
            for message in wanted[same:]:
                self._say(netlink, ADDRESS.new, ADDRESS.flags, with_lifetime(ADDRESS, message, raw[message]), "")

    def _say(self, netlink: Netlink, number: int, flags: int, message: Message, subject: str) -> bool:
        try:
            netlink.change(number, flags, message)
        except OSError as error:
            self._why[subject] = error.strerror or str(error)
            return False
        self._why.pop(subject, None)
        return True


def _dump(netlink: Netlink, kind: Kind) -> list[Message]:
    found: list[Message] = []
    for family in kind.families:
        # A kernel without the kind (next hops before 5.3, rules without CONFIG_IP_MULTIPLE_TABLES) has none of it.
        with contextlib.suppress(OSError):
            messages = netlink.dump(kind.get, kind.request(family))
            # One without rules of its own for a family answers for all families.
            found += [message for message in messages if (message.fixed[0] == family or not family) and identity(kind, message) is not None]
    return found


def _only(netlink: Netlink, kind: Kind) -> Image:
    return {kind.name: [_to_text(message) for message in _dump(netlink, kind)]}


def _to_text(message: Message) -> list[object]:
    return [message.fixed.hex(), [[kind, base64.b64encode(value).decode()] for kind, value in message.attributes]]


def _load(kind: Kind, image: Image) -> Objects:
    """Raw messages by their identities."""
    found: Objects = {}
    for fixed, attributes in image[kind.name]:
        raw = Message(bytes.fromhex(fixed), tuple((number, base64.b64decode(value)) for number, value in attributes))
        key = identity(kind, raw)
        if key is not None:
            found[key] = raw
    return found


def _name(kind: Kind, message: Message) -> str:
    return f"{kind.name} {message.fixed.hex()} {pack(message.attributes).hex()}"


def _texts(kind: Kind, image: Image) -> dict[str, Any]:
    """As they are in the image, by their names in `seen`."""
    return {_name(kind, key): _to_text(raw) for key, raw in _load(kind, image).items()}


def _moved(kind: Kind, before: Image, now: Image, left: Image | None) -> tuple[list[Message], list[Message]]:
    """(born, gone), each in the order of its image. After a commit, only what the transaction had left that way."""
    was, is_now = _load(kind, before), _load(kind, now)
    then = is_now if left is None else _load(kind, left)
    # What is on a link that the commit did not have came with the link, when it was made again just now.
    known = None if left is None else {link.ifindex for link in _links(left).values()}
    born = [
        message
        for message in is_now
        if message not in was and (message in then or (known is not None and link_of(kind, message) not in {0, *known}))
    ]
    return born, [message for message in was if message not in is_now and message not in then]


def _without_lost(kind: Kind, gone: list[Message], was: dict[str, Link], is_now: dict[str, Link]) -> list[Message]:
    """Nobody makes a link again whose other end was in a namespace of somebody's own, and what was on it has gone with it."""
    lost = {link.ifindex for key, link in was.items() if link.away and key not in is_now}
    return [message for message in gone if link_of(kind, message) not in lost]


def _links(image: Image) -> dict[str, Link]:
    return {link.key: link for link in (Link(*data) for data in image["links"])}


def _settings(links: dict[str, Link]) -> dict[str, object]:
    return {key: link.settings for key, link in links.items()}


def _by_link(addresses: Iterable[Message]) -> dict[tuple[int, bytes], list[Message]]:
    """Those of IPv4, which have an order, by link."""
    found: dict[tuple[int, bytes], list[Message]] = {}
    for message in addresses:
        if message.fixed[0] == 2:
            found.setdefault((2, message.fixed[4:8]), []).append(message)
    return found


def _sentence(kind: Kind, message: Message, names: dict[int, str]) -> str:
    return f"The {describe(kind, message, names)}"


def _await_detection(netlink: Netlink, before: Image) -> None:
    """A service that is started next could not bind to an address that is still tentative."""
    wanted = _load(ADDRESS, before)
    end = time.monotonic() + _DAD
    while time.monotonic() < end:
        tentative = {identity(ADDRESS, message) for message in _dump(netlink, ADDRESS) if is_tentative(message)}
        if not any(key in tentative and not is_tentative(raw) for key, raw in wanted.items()):
            return
        time.sleep(0.05)
