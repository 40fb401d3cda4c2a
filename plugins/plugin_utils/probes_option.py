# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The option `probes`: names, further trees of the probe etc, and a user's own probes; its JSON Schema.

The schema is applied where the library jsonschema is installed (ansible-core does not need it). The host checks the shape in any case,
before its first task (engine/probes/choice.py), and knows which names there are.
"""

from __future__ import annotations

import json
from typing import Any

_COMMAND = {
    "description": "A command, as text or as a list of words. No shell reads it.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ],
}
_NAME = {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,40}$"}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "array",
    "items": {
        "if": {"type": "object"},
        "then": {
            "required": ["name"],
            "if": {"properties": {"name": {"const": "etc"}}},
            "then": {
                "properties": {
                    "name": _NAME,
                    "trees": {"type": "array", "minItems": 1, "items": {"type": "string", "pattern": "^(/[^/]+)+$"}},
                },
                "required": ["name", "trees"],
                "additionalProperties": False,
            },
            "else": {
                "properties": {
                    "name": _NAME,
                    "capture": _COMMAND,
                    "restore": _COMMAND,
                    "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
                },
                "required": ["name", "capture", "restore"],
                "additionalProperties": False,
            },
        },
        "else": {"type": "string"},
    },
}


def parse(value: Any) -> tuple[Any, ...]:
    """Names and mappings out of a list, one of them, or text: "a,b" or JSON. Raises ValueError with what is wrong where."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = json.loads(value)
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError("give a list of names and of mappings")
    # Plain values: what comes from a template has types of Ansible's own.
    wishes = json.loads(
        json.dumps([json.loads(wish) if isinstance(wish, str) and wish.lstrip().startswith("{") else wish for wish in value])
    )
    _check(wishes)
    return tuple(wishes)


def _check(wishes: list[Any]) -> None:
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        return
    for error in Draft202012Validator(SCHEMA).iter_errors(wishes):
        where = ".".join(str(part) for part in error.absolute_path)
        raise ValueError(f"entry {where}: {error.message}")
