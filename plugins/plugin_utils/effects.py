# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What modules do that no transaction can undo: the declared table (effects.yml), and a task looked up in it.

    found = current().of(Doing(module="ansible.builtin.uri", arguments={"method": "POST"}, connection="ssh"))
    found.effect, found.why

A file has two lists. A row of `irreversible` has `modules` and `connections`, names or patterns with * (one of the two is enough), `effect`
(`EFFECTS`), and `why`, which completes "cannot be undone:". `when` and `unless` map arguments to the values for which the row does, or does
not, count; null stands for an argument that is not given. A row of `probed` has `modules` and `probes`. The first row that fits counts.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

BUILT_IN = Path(__file__).with_name("effects.yml")

# What happens instead of files changing. `none`: nothing that would have to be undone.
NONE, BOOT = "none", "boot"
EFFECTS: Mapping[str, str] = {
    NONE: "it only looks",
    "remote": "another machine",
    "daemon": "objects of a daemon",
    "database": "contents of a database",
    "message": "a message to people",
    "device": "a disk or a device, past the file systems",
    BOOT: "a boot",
}

KEYS: Mapping[str, Mapping[str, type]] = {
    "irreversible": {"modules": list, "connections": list, "effect": str, "why": str, "when": dict, "unless": dict},
    "probed": {"modules": list, "probes": list},
}


class TableError(ValueError):
    """The sentence says which row of which file, and what is wrong with it."""


class Doing(NamedTuple):
    """A task as far as it is known. `connection` without ansible.builtin; empty: not known. A templated argument is `UNKNOWN`."""

    module: str
    arguments: Mapping[str, Any]
    connection: str = ""


class _Unknown:
    def __repr__(self) -> str:
        return "(known when it runs)"


UNKNOWN = _Unknown()


class Effect(NamedTuple):
    """`depends` names the arguments that will decide whether it is so; empty: it is."""

    effect: str
    why: str
    depends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    modules: tuple[str, ...]
    connections: tuple[str, ...]
    effect: str
    why: str
    when: Mapping[str, tuple[Any, ...]]
    unless: Mapping[str, tuple[Any, ...]]

    def fits(self, doing: Doing) -> Effect | None:
        if not _one_of(doing.module, self.modules) and not _one_of(doing.connection, self.connections):
            return None
        open_questions = []
        for wanted, conditions in ((True, self.when), (False, self.unless)):
            answers = {name: _is_among(doing.arguments.get(name), values) for name, values in conditions.items()}
            unknown = [name for name, answer in answers.items() if answer is None]
            known = all(answer for answer in answers.values() if answer is not None)
            if wanted and not known:
                return None
            if not wanted and conditions and known and not unknown:
                return None
            # `unless` with one argument that already tells: the row counts, whatever the others are.
            if wanted or known:
                open_questions += unknown
        return Effect(self.effect, self.why, tuple(open_questions))


@dataclass(frozen=True)
class Table:
    """`rows` and `probed` in the order in which they are asked."""

    rows: tuple[Row, ...]
    probed: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]

    def of(self, doing: Doing) -> Effect | None:
        """The first row that fits; None: nothing is declared. Of a row whose fitting is not known yet, the next one that fits decides what
        is possible: `uri` with a templated method may be a GET."""
        perhaps: list[Effect] = []
        for row in self.rows:
            found = row.fits(doing)
            if found is None:
                continue
            if not found.depends:
                return self._settled(found, perhaps)
            perhaps.append(found)
        return next((one for one in perhaps if one.effect != NONE), perhaps[0] if perhaps else None)

    @staticmethod
    def _settled(found: Effect, perhaps: list[Effect]) -> Effect:
        worse = next((one for one in perhaps if one.effect != NONE), None)
        if found.effect == NONE and worse is not None:
            return worse
        depends = tuple(dict.fromkeys(name for one in perhaps for name in one.depends))
        return found._replace(depends=depends) if found.effect != NONE and depends else found

    def probes_of(self, module: str) -> tuple[str, ...] | None:
        """The probes that see what the module does besides files; None: it is not known, so all of them."""
        return next((probes for modules, probes in self.probed if _one_of(module, modules)), None)


def parse(text: str, *, where: str) -> Table:
    """Raises TableError."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TableError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, Mapping) or set(data) - set(KEYS):
        raise TableError(f"{where}: give a mapping with the lists {' and '.join(KEYS)}")
    lists = {name: _rows(data.get(name) or [], name, where) for name in KEYS}
    rows = tuple(_row(row, f"{where}: irreversible, row {n}") for n, row in enumerate(lists["irreversible"], 1))
    probed = tuple((_names(row.get("modules")), _names(row.get("probes"))) for row in lists["probed"])
    return Table(rows, probed)


def load(paths: tuple[str, ...] = ()) -> Table:
    """The user's files, then ours. Raises TableError."""
    tables = []
    for path in (*paths, str(BUILT_IN)):
        try:
            tables.append(parse(Path(path).read_text(encoding="utf-8"), where=path))
        except OSError as error:
            raise TableError(f"irreversible_table: {path}: {error.strerror}") from None
    return Table(tuple(row for table in tables for row in table.rows), tuple(row for table in tables for row in table.probed))


_users: tuple[str, ...] = ()


def use(paths: tuple[str, ...]) -> None:
    """In the main process, before workers fork: the user's files. Raises TableError."""
    global _users
    _users = paths
    _loaded.cache_clear()
    current()


def current() -> Table:
    return _loaded()


@functools.cache
def _loaded() -> Table:
    return load(_users)


def _rows(data: Any, name: str, where: str) -> list[dict[str, Any]]:
    if not isinstance(data, list):
        raise TableError(f"{where}: '{name}' is a {type(data).__name__}; give a list of rows")
    for n, row in enumerate(data, 1):
        at = f"{where}: {name}, row {n}"
        if not isinstance(row, dict):
            raise TableError(f"{at} is a {type(row).__name__}; give a mapping")
        for key, value in row.items():
            kind = KEYS[name].get(key)
            if kind is None:
                raise TableError(f"{at}: unknown key '{key}'; there are: {', '.join(KEYS[name])}")
            if not isinstance(value, kind):
                raise TableError(f"{at}: '{key}' is a {type(value).__name__}; give a {kind.__name__}")
            if isinstance(value, list) and not all(isinstance(item, str) for item in value):
                raise TableError(f"{at}: '{key}' has something that is no text")
        if not row.get("modules") and not row.get("connections"):
            raise TableError(f"{at} names no modules" + (" and no connections" if "connections" in KEYS[name] else ""))
    return data


def _row(row: dict[str, Any], at: str) -> Row:
    effect = row.get("effect", "")
    if effect not in EFFECTS:
        raise TableError(f"{at}: effect is '{effect}'; give one of: {', '.join(EFFECTS)}")
    if effect != NONE and not row.get("why"):
        raise TableError(f"{at}: 'why' is missing; it completes the sentence 'cannot be undone: ...'")
    return Row(
        modules=_names(row.get("modules")),
        connections=_names(row.get("connections")),
        effect=effect,
        why=str(row.get("why", "")),
        when=_conditions(row.get("when") or {}, f"{at}: 'when'"),
        unless=_conditions(row.get("unless") or {}, f"{at}: 'unless'"),
    )


def _conditions(values: Mapping[str, Any], at: str) -> Mapping[str, tuple[Any, ...]]:
    if not all(isinstance(allowed, list) for allowed in values.values()):
        raise TableError(f"{at} maps each argument to a list of values (null: not given)")
    return {str(name): tuple(allowed) for name, allowed in values.items()}


def _names(value: Any) -> tuple[str, ...]:
    return tuple(value or ())


def _one_of(name: str, patterns: tuple[str, ...]) -> bool:
    return bool(name) and any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_among(value: Any, allowed: tuple[Any, ...]) -> bool | None:
    """None: it is known when the task runs."""
    if value is UNKNOWN:
        return None
    if value is None or value == "":
        return None in allowed
    return str(value).strip().lower() in {str(one).lower() for one in allowed if one is not None}
