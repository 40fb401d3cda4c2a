# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The option `probes` as values: names of probes, further trees of the probe `etc`, and the user's own probes.

    probes: all                                   probes: "systemd, mounts"
    probes: [all, {name: etc, trees: [/opt/app/conf]}, {name: app, capture: appctl dump, restore: appctl load}]

The controller has checked it against plugin_utils/probes.schema.json when it has the library for that; here it is checked in any case.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import Usage

_HINT = "See the option probes in `ansible-doc -t callback acid.host.transaction`."
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
# Seconds that a user's command may take.
TIMEOUT = 60.0


class OwnCommands(NamedTuple):
    """A user's probe: `capture` writes the state to stdout, `restore` reads it from stdin. `timeout` in seconds, for each."""

    name: str
    capture: tuple[str, ...]
    restore: tuple[str, ...]
    timeout: float = TIMEOUT


class Choice(NamedTuple):
    names: tuple[str, ...]
    trees: tuple[bytes, ...] = ()
    own: tuple[OwnCommands, ...] = ()


def parse(option: Any, known: Iterable[str]) -> Choice:
    """`known`: names of the collection's own probes. All of them where no name is given. Raises Usage."""
    builtin = tuple(known)
    if isinstance(option, dict):
        option = [option]
    wishes = option.split(",") if isinstance(option, str) else list(option or ())
    names = [wish.strip() for wish in wishes if isinstance(wish, str) and wish.strip()]
    for name in names:
        if name not in (*builtin, "all"):
            raise Usage(f"There is no probe {name!r}.", hint=f"The option probes takes all, or some of {', '.join(builtin)}.")
    trees: list[bytes] = []
    own: list[OwnCommands] = []
    for wish in wishes:
        if isinstance(wish, str):
            continue
        if not isinstance(wish, dict):
            raise Usage(f"The option probes has {wish!r}, which is neither a name nor a mapping.", hint=_HINT)
        if wish.get("name") == "etc":
            trees += _trees(wish)
        else:
            own.append(_own(wish, {*builtin, "all", *(one.name for one in own)}))
    chosen = builtin if "all" in names or not names else tuple(names)
    return Choice(chosen if not trees or "etc" in chosen else (*chosen, "etc"), tuple(trees), tuple(own))


def _trees(wish: dict[str, Any]) -> list[bytes]:
    found = wish.get("trees")
    if set(wish) != {"name", "trees"} or not isinstance(found, list):
        raise Usage("The probe etc takes a list of trees, and nothing else.", hint=_HINT)
    for tree in found:
        if not isinstance(tree, str) or os.path.normpath(tree) != tree or not tree.startswith("/") or tree == "/":
            raise Usage(f"The probe etc has the tree {tree!r}; give absolute paths without '..' or a slash at the end.", hint=_HINT)
    return [os.fsencode(tree) for tree in found]


def _own(wish: dict[str, Any], taken: set[str]) -> OwnCommands:
    name = wish.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in taken:
        why = "is taken" if isinstance(name, str) and name in taken else "is not a name: small letters, digits, '-' and '_'"
        raise Usage(f"The option probes has a probe whose name {name!r} {why}.", hint=_HINT)
    unknown = sorted(set(wish) - {"name", "capture", "restore", "timeout"}, key=str)
    if unknown:
        raise Usage(f"The probe {name} has the unknown key {unknown[0]!r}.", hint=_HINT)
    timeout = wish.get("timeout", TIMEOUT)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= 3600:
        raise Usage(f"The probe {name} has the timeout {timeout!r}; give seconds, up to 3600.", hint=_HINT)
    return OwnCommands(name, _command(name, "capture", wish), _command(name, "restore", wish), float(timeout))


def _command(name: str, key: str, wish: dict[str, Any]) -> tuple[str, ...]:
    found = wish.get(key)
    try:
        words = shlex.split(found) if isinstance(found, str) else list(found or ())
    except (TypeError, ValueError) as error:
        raise Usage(f"The probe {name} has a {key} that is no command: {error}.", hint=_HINT) from error
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise Usage(f"The probe {name} needs a {key}: a command, as text or as a list of its words. No shell reads it.", hint=_HINT)
    return tuple(words)
