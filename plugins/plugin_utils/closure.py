# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The variables that some tasks speak of, as they are now: so that the tasks can be run later, when the play's own are gone.

Values are taken as written, templates and vault values unresolved, together with the variables that these speak of in turn. What came
from a file that is encrypted as a whole is not taken: nothing about it says how to keep it encrypted.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible.parsing.vault import VaultHelper

from . import sealed

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None

LARGEST_VALUE = 16 << 10  # characters of JSON
LARGEST = 48 << 10  # all of them: they travel in one word of a command line

# There in every run.
MAGIC = frozenset(
    ("hostvars", "groups", "group_names", "inventory_hostname", "inventory_hostname_short", "vars", "omit", "ansible_facts", "_task")
    + ("environment", "ansible_play_hosts", "ansible_play_hosts_all", "ansible_play_batch", "play_hosts", "ansible_version", "acid_result")
    + ("acid_compensate", "acid_savepoint", "acid_transaction", "acid_capture", "ansible_delegated_vars", "true", "false", "none")
)

_NAME = re.compile(r"[A-Za-z_]\w*")
_MARKED = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
# Keywords whose values are expressions without braces.
_BARE = frozenset(("when", "until", "failed_when", "changed_when", "loop", "with_items", "that", "var"))


class Closure(NamedTuple):
    """`values` are packed (sealed.py); `left_out` has a reason for each variable that could not be taken. `vaulted`: some are vault's."""

    values: dict[str, Any]
    left_out: dict[str, str]
    vaulted: bool


def of(data: Any, variables: Mapping[str, Any]) -> Closure:
    values: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    vaulted, room = _has_vault(data), LARGEST
    todo = list(names(data))
    while todo:
        name = todo.pop()
        if name in values or name in left_out or name in MAGIC or name not in variables:
            continue
        value = variables[name]
        reason, packed = _packed(value)
        size = 0 if reason else len(json.dumps(packed))
        if size > min(room, LARGEST_VALUE):
            reason = f"it is too large ({size} characters)"
        if reason:
            left_out[name] = reason
            continue
        room -= size
        values[name] = packed
        vaulted = vaulted or _has_vault(value)
        todo += names(value)
    return Closure(values, left_out, vaulted or any("encrypted" in reason for reason in left_out.values()))


def names(data: Any, *, bare: bool = False) -> Iterator[str]:
    """Whatever may be a variable's name in the templates of `data`."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from names(value, bare=key in _BARE)
    elif isinstance(data, (list, tuple)):
        for value in data:
            yield from names(value, bare=bare)
    elif isinstance(data, str) and VaultHelper.get_ciphertext(data, with_tags=False) is None:
        yield from _NAME.findall(data if bare else " ".join(_MARKED.findall(data)))


def _packed(value: Any) -> tuple[str, Any]:
    """(why not, the packed value)"""
    if _from_encrypted_file(value):
        return "it comes from an encrypted file", None
    try:
        return "", sealed.pack(value)
    except sealed.Unstorable as error:
        return f"it is a {error}", None


def _has_vault(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_vault, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_has_vault, value))
    return VaultHelper.get_ciphertext(value, with_tags=False) is not None


def _from_encrypted_file(value: Any) -> bool:
    if isinstance(value, Mapping) and any(map(_from_encrypted_file, value.values())):
        return True
    if isinstance(value, (list, tuple)) and any(map(_from_encrypted_file, value)):
        return True
    origin = Origin.get_tag(value) if Origin is not None else None
    return bool(origin and origin.path and _is_encrypted(str(origin.path)))


@functools.cache
def _is_encrypted(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(14) == b"$ANSIBLE_VAULT"
    except OSError:
        return False
