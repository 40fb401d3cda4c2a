# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of the lab."""

from __future__ import annotations

import argparse
import json
import os
import sys

from . import hosts, image, keeper, lifecycle, registry, ssh
from .errors import LabError
from .model import FILE_SYSTEMS
from .oracle.capture import capture
from .oracle.compare import compare, outside
from .oracle.model import dump, load
from .recipe import IMAGES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    parser.add_argument("--lab", default=os.environ.get("ACID_LAB", "main"), help="name of the lab (default: $ACID_LAB or main)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="build an image (cached by its recipe)")
    build.add_argument("--image", choices=[*IMAGES, "all"], default="base")
    build.add_argument("--disks", action="store_true", help="also the ext4 and xfs images that `up --fs` copies")
    up = verbs.add_parser("up", help="add N running hosts")
    up.add_argument("count", type=int)
    up.add_argument("--fs", choices=FILE_SYSTEMS, default="btrfs")
    up.add_argument("--name", default="h", help="prefix of the hosts' names")
    up.add_argument("--image", choices=list(IMAGES), default="base")
    login = verbs.add_parser("ssh", help="run a command over ssh, or a shell")
    login.add_argument("--user", default="root")
    login.add_argument("host")
    login.add_argument("command", nargs=argparse.REMAINDER)
    for verb, text in (
        ("kill", "SIGKILL to all of a host; it stays down"),
        ("cut", "power cut of a host on ext4 or xfs, then boot"),
        ("reboot", "orderly reboot"),
        ("start", "boot a host that is down"),
        ("fresh", "back to the image, as new"),
        ("remove", "take one host out of the lab"),
        ("_keep", argparse.SUPPRESS),
        ("_boot", argparse.SUPPRESS),
        ("_identify", argparse.SUPPRESS),
    ):
        verbs.add_parser(verb, help=text).add_argument("host")
    for verb, text in (("snapshot", "keep a host's disk under a name"), ("restore", "back to a snapshot, and boot")):
        command = verbs.add_parser(verb, help=text)
        command.add_argument("host")
        command.add_argument("name")
    verbs.add_parser("state", help="the whole state of a host, as JSON lines").add_argument("host")
    differ = verbs.add_parser("diff", help="compare two states; exit code 1 if they differ")
    differ.add_argument("before")
    differ.add_argument("after")
    differ.add_argument("--json", action="store_true")
    differ.add_argument("--ignore", default="", metavar="FIELD,...", help="fields that do not count, as mtime between two runs")
    differ.add_argument("--across-boot", action="store_true", help="the host booted in between")
    differ.add_argument("--outside", default="", metavar="PATH,...", help="leave out these paths and what is below them")
    for verb, text in (
        ("status", "hosts of the lab"),
        ("inventory", "an Ansible inventory (YAML)"),
        ("down", "remove the lab's hosts and network"),
        ("_serve", argparse.SUPPRESS),
    ):
        verbs.add_parser(verb, help=text)
    return parser


def _hosts(arguments: argparse.Namespace) -> int:
    """Verbs about one host."""
    host = registry.find_host(registry.find_lab(arguments.lab), arguments.host)
    verb = arguments.verb
    if verb == "_keep":
        return keeper.keep(host)
    if verb == "_boot":
        keeper.boot(host)
    elif verb == "_identify":
        lifecycle.identify_disk(host)
    elif verb == "ssh":
        return ssh.interactive(host, arguments.command, user=arguments.user)
    elif verb == "state":
        sys.stdout.writelines(f"{line}\n" for line in dump(capture(host)))
    elif verb == "kill":
        hosts.kill(host)
    elif verb == "cut":
        lifecycle.wait([hosts.start(hosts.cut(host))])
    elif verb == "reboot":
        lifecycle.reboot(host)
    elif verb == "start":
        lifecycle.wait([hosts.start(host)])
    elif verb == "fresh":
        lifecycle.wait([hosts.restore(host, None)])
    elif verb == "remove":
        hosts.remove(host)
    elif verb == "snapshot":
        hosts.snapshot(host, arguments.name)
    elif verb == "restore":
        lifecycle.wait([hosts.restore(host, arguments.name)])
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    states = []
    for path in (arguments.before, arguments.after):
        with open(path, encoding="ascii") as lines:
            states.append(load(lines))
    found = compare(*states, ignore=frozenset(arguments.ignore.split(",")), across_boot=arguments.across_boot)
    if arguments.outside:
        found = outside(found, arguments.outside.split(","))
    if arguments.json:
        print(json.dumps([difference.to_json() for difference in found], indent=1))
    else:
        for difference in found:
            print(difference)
        print(f"{len(found)} differences, {sum(difference.key.kind == 'path' for difference in found)} of them paths", file=sys.stderr)
    return 1 if found else 0


def _dispatch(arguments: argparse.Namespace) -> int:
    verb = arguments.verb
    if verb == "build":
        for name in IMAGES if arguments.image == "all" else [arguments.image]:
            print(image.build(name))
            for fs in FILE_SYSTEMS[1:] if arguments.disks else ():
                print(image.disk(name, fs))
    elif verb == "up":
        for host in lifecycle.up(arguments.lab, count=arguments.count, fs=arguments.fs, prefix=arguments.name, image_name=arguments.image):
            print(host.name, host.ip)
    elif verb == "down":
        lifecycle.down(arguments.lab)
    elif verb == "status":
        for host in registry.hosts(registry.find_lab(arguments.lab)):
            print(host.name, host.ip, host.fs, host.image, "running" if hosts.running(host) else "down")
    elif verb == "inventory":
        print(json.dumps(lifecycle.inventory(registry.find_lab(arguments.lab)), indent=2))
    elif verb == "diff":
        return _diff(arguments)
    elif verb == "_serve":
        lifecycle.serve(registry.find_lab(arguments.lab))
    else:
        return _hosts(arguments)
    return 0


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("lab: needs root: it mounts file systems and boots containers", file=sys.stderr)
        return 2
    try:
        return _dispatch(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
