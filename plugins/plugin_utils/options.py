# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of a transaction: one table of names, types and defaults, from ansible.cfg and environment up to the play's variable.

`parse` turns what a user may write for `acid_transaction` (a boolean, a mapping, or a string of either from -e or a survey) into
`Options`, or None when it turns the transaction off. Anything unknown or out of range raises `OptionError` with a sentence, so that
a typing error stops the play before its first task instead of quietly changing what is protected.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from . import probes_option

TRUE = frozenset(("yes", "on", "true", "1", "y", "t"))
FALSE = frozenset(("no", "off", "false", "0", "n", "f"))


class OptionError(ValueError):
    """The sentence says which option, what was given, and what may be given."""


@dataclass(frozen=True)
class Options:
    """See the callback's documentation for the meaning of each. Times are seconds."""

    name: str = ""
    scope: str = "host"
    group: str = ""
    parties: tuple[str, ...] = ()
    confirm_timeout: int = 300
    durability: str = "process"
    on_drift: str = "stop"
    irreversible: str = "warn"
    delegates: str = "irreversible"
    volumes: tuple[str, ...] = ()
    probes: tuple[Any, ...] = ("all",)
    exclude: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    observe: int = 0
    rehearse: bool = False
    retention: tuple[str, ...] = ("7d", "10%")

    @property
    def policy(self) -> str:
        """What becomes of what cannot be undone. A rehearsal has to leave nothing behind, so there a warning is not enough."""
        return "deny" if self.rehearse and self.irreversible == "warn" else self.irreversible

    def for_host(self) -> dict[str, Any]:
        """What the host's engine needs to know; the rest is the controller's own business."""
        known: dict[str, Any] = {
            "confirm_timeout": self.confirm_timeout,
            "durability": self.durability,
            "on_drift": self.on_drift,
            "irreversible": self.policy,
            "retention": limits(self.retention),
        }
        if self.probes != ("all",):
            known["probes"] = list(self.probes)
        return known

    def to_json(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


NAMES = tuple(entry.name for entry in fields(Options))

CHOICES: Mapping[str, tuple[str, ...]] = {
    "scope": ("host", "play", "playbook"),
    "durability": ("process", "power"),
    "on_drift": ("stop", "force", "merge"),
    "irreversible": ("allow", "warn", "deny"),
    "delegates": ("irreversible", "trace"),
}

MINIMUM: Mapping[str, int] = {"confirm_timeout": 10, "observe": 0}


@dataclass(frozen=True)
class _Later:
    """An option that is part of the interface and has no implementation yet: refusing beats pretending."""

    allowed: tuple[Any, ...]
    why: str


NOT_YET: Mapping[str, _Later] = {
    "scope": _Later(("host",), "a transaction over several hosts comes with the coordinator; use 'scope: host'"),
    "group": _Later(("",), "groups of transactions come with the coordinator"),
    "parties": _Later(((),), "further parties come with the coordinator"),
    "volumes": _Later(((),), "volume snapshots are not in this version"),
    "checks": _Later(((),), "checks before commit are not in this version"),
    "observe": _Later((0,), "observing after commit is not in this version"),
    "delegates": _Later(("irreversible",), "tracing delegates outside the play is not in this version; put the host into the play instead"),
}


def limits(retention: tuple[str, ...]) -> dict[str, float]:
    """{"days", "percent"} out of words such as 7d, 12h and 10%. Raises OptionError."""
    found: dict[str, float] = {}
    for word in retention:
        unit, number = word[-1:], word[:-1].strip()
        if unit not in ("d", "h", "%") or not number.replace(".", "", 1).isdigit():
            raise OptionError(f"option 'retention' has '{word}'; give a time and a share of the file system, such as 7d or 12h, and 10%")
        found["percent" if unit == "%" else "days"] = float(number) / (24 if unit == "h" else 1)
    return found


def parse(value: Any, *, defaults: Options) -> Options | None:
    """`value` is what the play says: None (nothing), false (off), true, or a mapping of options on top of `defaults`."""
    given = _from_text(value)
    if given is False:
        return None
    if given is None or given is True:
        return _checked(defaults)
    if not isinstance(given, Mapping):
        raise OptionError(f"acid_transaction is a {type(value).__name__}; give true, false, or a mapping of options")
    return _checked(override(defaults, given, where="acid_transaction"))


def override(base: Options, given: Mapping[str, Any], *, where: str) -> Options:
    """`base` with the given values coerced. None leaves the base's value. Raises OptionError naming `where` it was written."""
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name not in NAMES:
            near = difflib.get_close_matches(str(name), NAMES, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(NAMES)}"
            raise OptionError(f"{where}: unknown option '{name}'; {hint}")
        if value is not None:
            changes[name] = _coerce(name, value, type(getattr(Options, name, ())), where=where)
    return replace(base, **changes)


def _from_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise OptionError(f"acid_transaction is a string that looks like JSON and is not ({error})") from error
    raise OptionError(f"acid_transaction is '{text}'; give true, false, or a mapping of options")


def _coerce(name: str, value: Any, kind: type, *, where: str) -> Any:
    if name == "probes":
        return _probes(value, where=where)
    if kind is bool:
        return _boolean(name, value, where=where)
    if kind is int:
        return _integer(name, value, where=where)
    if kind is tuple:
        return _texts(value)
    text = str(value).strip()
    choices = CHOICES.get(name)
    if choices and text.lower() not in choices:
        raise OptionError(f"{where}: option '{name}' is '{text}'; give one of: {', '.join(choices)}")
    return text.lower() if choices else text


def _boolean(name: str, value: Any, *, where: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text not in TRUE | FALSE:
        raise OptionError(f"{where}: option '{name}' is '{value}'; give true or false")
    return text in TRUE


def _integer(name: str, value: Any, *, where: str) -> int:
    try:
        number = int(str(value).strip())
    except ValueError:
        raise OptionError(f"{where}: option '{name}' is '{value}'; give a whole number") from None
    if isinstance(value, bool) or number < MINIMUM.get(name, 0):
        raise OptionError(f"{where}: option '{name}' is '{value}'; give a whole number of at least {MINIMUM.get(name, 0)}")
    return number


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part for part in (piece.strip() for piece in value.split(",")) if part)
    if isinstance(value, (list, tuple)):
        return tuple(str(part) for part in value)
    return (str(value),)


def _probes(value: Any, *, where: str) -> tuple[Any, ...]:
    try:
        return probes_option.parse(value)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{where}: option 'probes': {error}") from None


def _checked(options: Options) -> Options:
    limits(options.retention)
    for name, later in NOT_YET.items():
        value = getattr(options, name)
        if value not in later.allowed:
            shown = ", ".join(value) if isinstance(value, tuple) else str(value).lower()
            raise OptionError(f"option '{name}: {shown}' cannot be used yet: {later.why}")
    return options
