# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, routes, rules, packet filter, sysctls."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from ..volatile import ABSENT, SYSCTLS, Matcher
from .model import Key, State

LINKS = ["ip", "-j", "-d", "addr", "show"]
ROUTES = {"ipv4": ["ip", "-j", "-4", "route", "show", "table", "all"], "ipv6": ["ip", "-j", "-6", "route", "show", "table", "all"]}
RULES = {"ipv4": ["ip", "-j", "-4", "rule"], "ipv6": ["ip", "-j", "-6", "rule"]}
NEIGHBOURS = ["ip", "-j", "neigh", "show", "nud", "permanent"]
NFTABLES = ["nft", "-n", "-s", "list", "ruleset"]
LINK_FIELDS = ("flags", "mtu", "operstate", "address", "master", "link_type", "txqlen", "promiscuity")
SYSCTL_TOP = "/proc/sys/net"


def parse_links(output: str) -> State:
    found: State = {}
    for link in json.loads(output or "[]"):
        name = link["ifname"]
        fields = {field: json.dumps(link[field], sort_keys=True) for field in LINK_FIELDS if field in link}
        fields["kind"] = json.dumps(link.get("linkinfo", {}).get("info_kind", ""))
        found[Key("link", name)] = dict(fields)
        for address in link.get("addr_info", []):
            local = f"{address.get('local')}/{address.get('prefixlen')}"
            # Life times count down.
            found[Key("address", f"{name} {local}")] = {
                key: json.dumps(value)
                for key, value in address.items()
                if key not in ("valid_life_time", "preferred_life_time", "local", "prefixlen")
            }
    return found


def parse_objects(kind: str, output: str) -> State:
    """Routes, rules and neighbours have no name of their own: all of one is its name."""

    def canonical(item: dict[str, Any]) -> str:
        return json.dumps(
            {key: value for key, value in item.items() if key not in ("expires", "used", "confirmed", "updated")}, sort_keys=True
        )

    return {Key(kind, canonical(item)): {} for item in json.loads(output or "[]") if item}


def parse_nft(output: str) -> State:
    """One entry per table."""
    found: State = {}
    for block in output.split("\n}\n"):
        head, _separator, body = block.strip().partition(" {")
        if head:
            found[Key("nftables", head)] = {"rules": body.rstrip("}").strip()}
    return found


def _files(top: str) -> Iterator[str]:
    for folder, _names, files in os.walk(top):
        yield from (os.path.join(folder, name) for name in files)


def read_sysctls() -> State:
    """net.* of this process's network namespace. Some are write-only or need a value set first."""
    rules = Matcher(SYSCTLS)
    found: State = {}
    for path in _files(SYSCTL_TOP):
        name = path[len("/proc/sys/") :].replace(".", "\0").replace("/", ".").replace("\0", "/")
        if rules.part(name) == ABSENT:
            continue
        try:
            with open(path, "rb") as file:
                found[Key("sysctl", name)] = {"value": file.read().decode(errors="replace").strip()}
        except OSError:
            continue
    return found
