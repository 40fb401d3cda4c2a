# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import what: docs/architecture.md as a test. Each rule is also shown a file that breaks it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

TOP = Path(__file__).resolve().parents[2]
ENGINE = PurePosixPath("plugins/module_utils/engine")
CONTROLLER = tuple(PurePosixPath("plugins") / name for name in ("callback", "action", "plugin_utils"))
MODULES = PurePosixPath("plugins/modules")
LAB = PurePosixPath("tests/lab")
ENGINE_FOR_CONTROLLER = {"errors", "states", "model"}
COLLECTION = "ansible_collections.acid.host."
PROCESS_MODULES = {"subprocess", "multiprocessing", "pty", "concurrent.futures.process", "asyncio.subprocess"}
PROCESS_CALL = re.compile(r"^os\.(system|popen|posix_spawnp?|spawn[lv]p?e?)$")
SQL = re.compile(
    r"^\s*(SELECT\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|CREATE\s+(TABLE|INDEX)\s|PRAGMA\s)", re.IGNORECASE
)
SHAPELESS = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


@dataclass(frozen=True)
class Source:
    path: PurePosixPath
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    def imports(self) -> Iterator[tuple[int, str]]:
        """(line, name) of each import; relative ones as the path that they mean: plugins.module_utils.engine.journal."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = ".".join(self.path.parent.parts[: len(self.path.parent.parts) - node.level + 1]) + "." if node.level else ""
                base = package + (node.module or "")
                base = base.rstrip(".")
                yield node.lineno, base
                # `from . import journal` and `from .probes import base` name modules, `from .journal import Journal` does not.
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)

    def own_imports(self) -> Iterator[tuple[int, PurePosixPath]]:
        """What is imported of this collection, as a path below its top without .py."""
        for line, name in self.imports():
            local = name.removeprefix(COLLECTION)
            if local.startswith("plugins."):
                yield line, PurePosixPath(*local.split("."))


Rule = Callable[[Source], Iterator[str]]


def _inside(path: PurePosixPath, folder: PurePosixPath) -> bool:
    return folder in path.parents


def engine_is_stdlib_only(source: Source) -> Iterator[str]:
    if not _inside(source.path, ENGINE):
        return
    for line, name in source.imports():
        if name.split(".")[0] in sys.stdlib_module_names or PurePosixPath(*name.split(".")).is_relative_to(ENGINE):
            continue
        yield f"{source.path}:{line}: the engine imports {name}; it may import the standard library and itself, by relative imports"


def engine_imports_are_static(source: Source) -> Iterator[str]:
    if not _inside(source.path, ENGINE):
        return
    for line, name in source.imports():
        if name.split(".")[0] in {"importlib", "pkgutil", "runpy"}:
            yield f"{source.path}:{line}: {name}: AnsiballZ ships only what it sees imported; name the module in an import statement"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__import__":
            yield f"{source.path}:{node.lineno}: __import__: AnsiballZ ships only what it sees imported"


def only_the_journal_knows_sql(source: Source) -> Iterator[str]:
    """One file of the journal opens the database, and the files beside it hold what it is asked."""
    journal = ENGINE / "journal"
    if not _inside(source.path, PurePosixPath("plugins")) or source.path == journal / "database.py":
        return
    for line, name in source.imports():
        if name.split(".")[0] in {"sqlite3", "dbm"}:
            yield f"{source.path}:{line}: {name}: only engine/journal/database.py talks to the database"
    if _inside(source.path, journal):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value):
            yield f"{source.path}:{node.lineno}: SQL: only engine/journal/ holds any"


def only_commands_runs_processes(source: Source) -> Iterator[str]:
    if not _inside(source.path, ENGINE) or source.path == ENGINE / "commands.py":
        return
    for line, name in source.imports():
        if name in PROCESS_MODULES or name.split(".")[0] in PROCESS_MODULES:
            yield f"{source.path}:{line}: {name}: only engine/commands.py runs subprocesses"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and PROCESS_CALL.match(ast.unparse(node.func)):
            yield f"{source.path}:{node.lineno}: {ast.unparse(node.func)}: only engine/commands.py runs subprocesses"


def _is_provider(path: PurePosixPath) -> bool:
    """A probe may be split in several files; what defines no Probe or Volume of its own is a piece of one, not another one."""
    if path.name == "base":
        return False
    file = TOP / path.with_suffix(".py")
    if not file.is_file():  # a name inside a module, or a planted example
        return not (TOP / path.parent.with_suffix(".py")).is_file()
    classes = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef))
    return any(ast.unparse(base).rsplit(".", maxsplit=1)[-1] in ("Probe", "Volume") for node in classes for base in node.bases)


def providers_know_nobody(source: Source) -> Iterator[str]:
    """probes/ and volumes/: not the journal, and not each other; only base.py is shared, and the registry names them all."""
    for family in (ENGINE / "probes", ENGINE / "volumes"):
        if not _inside(source.path, family):
            continue
        for line, path in source.own_imports():
            if path.is_relative_to(ENGINE / "journal"):
                yield f"{source.path}:{line}: a provider imports the journal; return a value instead"
            other = next((f for f in (ENGINE / "probes", ENGINE / "volumes") if _inside(path, f)), None)
            if other is None or source.path.name in ("registry.py", "__init__.py"):
                continue
            if other != family or _is_provider(path):
                yield f"{source.path}:{line}: a provider imports another one, {path}; what they share belongs in base.py"


def controller_sees_only_values(source: Source) -> Iterator[str]:
    if not any(_inside(source.path, folder) for folder in CONTROLLER):
        return
    for line, path in source.own_imports():
        if path == ENGINE or path.is_relative_to(ENGINE):
            parts = path.relative_to(ENGINE).parts
            # `from ..module_utils.engine import errors` shows as engine, then engine.errors: the second one tells.
            if parts and parts[0] not in ENGINE_FOR_CONTROLLER:
                names = ", ".join(sorted(ENGINE_FOR_CONTROLLER))
                yield f"{source.path}:{line}: the controller imports {path}; of the engine it may know {names}: values, no actions"


def lab_is_independent(source: Source) -> Iterator[str]:
    """The oracle must not share an error with what it judges."""
    if not _inside(source.path, LAB):
        return
    own = {item.name.removesuffix(".py") for item in (TOP / LAB).iterdir()} if (TOP / LAB).is_dir() else set()
    for line, name in source.imports():
        first = name.split(".")[0]
        if first == "pytest" and source.path.name.startswith("test_"):
            continue  # its tests; not the lab itself
        if first in sys.stdlib_module_names or first in own or PurePosixPath(*name.split(".")).is_relative_to(LAB):
            continue
        yield f"{source.path}:{line}: the lab imports {name}; it may import the standard library and itself"


def names_say_what_is_inside(source: Source) -> Iterator[str]:
    parts = (*source.path.parts[:-1], source.path.stem)
    for part in parts:
        if part in SHAPELESS or any(part.endswith(f"_{word}") for word in SHAPELESS - {"common"}):
            if part in ("module_utils", "plugin_utils"):
                continue
            yield f"{source.path}: {part!r} does not say what is inside"


RULES: tuple[Rule, ...] = (
    engine_is_stdlib_only,
    engine_imports_are_static,
    only_the_journal_knows_sql,
    only_commands_runs_processes,
    providers_know_nobody,
    controller_sees_only_values,
    lab_is_independent,
    names_say_what_is_inside,
)


def sources() -> list[Source]:
    folders = (TOP / "plugins", TOP / "tests")
    paths = sorted(path for folder in folders for path in folder.rglob("*.py") if "__pycache__" not in path.parts)
    # Scripts that scenario plays run on their hosts are input, not code of the project.
    paths = [path for path in paths if not path.is_relative_to(TOP / "tests" / "scenarios" / "plays")]
    return [Source(PurePosixPath(path.relative_to(TOP).as_posix()), path.read_text(encoding="utf-8")) for path in paths]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_is_kept(rule: Rule) -> None:
    everything = sources()
    assert any(_inside(source.path, ENGINE) for source in everything), "found no engine: this test looks in the wrong place"
    assert [complaint for source in everything for complaint in rule(source)] == []


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (engine_is_stdlib_only, "plugins/module_utils/engine/undo.py", "from ansible.module_utils.basic import AnsibleModule"),
        (engine_is_stdlib_only, "plugins/module_utils/engine/undo.py", "import yaml"),
        (engine_is_stdlib_only, "plugins/module_utils/engine/undo.py", "from ..other import thing"),
        (engine_is_stdlib_only, "plugins/module_utils/engine/trace/notify.py", "from ... import other"),
        (engine_imports_are_static, "plugins/module_utils/engine/undo.py", "import importlib.util"),
        (engine_imports_are_static, "plugins/module_utils/engine/undo.py", "x = __import__('y')"),
        (only_the_journal_knows_sql, "plugins/module_utils/engine/agent.py", "def f():\n    import sqlite3"),
        (only_the_journal_knows_sql, "plugins/module_utils/engine/agent.py", "q = 'select state from tx'"),
        (only_the_journal_knows_sql, "plugins/plugin_utils/recap.py", "from sqlite3 import connect"),
        (only_the_journal_knows_sql, "plugins/module_utils/engine/journal/steps.py", "import sqlite3"),
        (only_commands_runs_processes, "plugins/module_utils/engine/probes/systemd.py", "import subprocess"),
        (only_commands_runs_processes, "plugins/module_utils/engine/agent.py", "import os\nos.system('true')"),
        (only_commands_runs_processes, "plugins/module_utils/engine/agent.py", "import os\nos.posix_spawn('/bin/true', [], {})"),
        (only_commands_runs_processes, "plugins/module_utils/engine/agent.py", "from concurrent.futures.process import Pool"),
        (providers_know_nobody, "plugins/module_utils/engine/probes/systemd.py", "from ..journal import Journal"),
        (providers_know_nobody, "plugins/module_utils/engine/probes/systemd.py", "from .. import journal"),
        (providers_know_nobody, "plugins/module_utils/engine/probes/systemd.py", "from .mounts import Mounts"),
        (providers_know_nobody, "plugins/module_utils/engine/volumes/zfs.py", "from ..probes import base"),
        (controller_sees_only_values, "plugins/plugin_utils/hooks.py", "from ..module_utils.engine import undo"),
        (controller_sees_only_values, "plugins/action/tx_begin.py", f"from {COLLECTION}plugins.module_utils.engine.journal import x"),
        (lab_is_independent, "tests/lab/acidlab/oracle.py", "from engine import undolog"),
        (lab_is_independent, "tests/lab/acidlab/oracle.py", "import yaml"),
        (lab_is_independent, "tests/lab/acidlab/oracle.py", "from ....plugins.module_utils import engine"),
        (names_say_what_is_inside, "plugins/plugin_utils/helpers.py", ""),
        (names_say_what_is_inside, "plugins/module_utils/engine/common/x.py", ""),
        (names_say_what_is_inside, "plugins/plugin_utils/host_manager.py", ""),
    ],
)
def test_rule_finds_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(PurePosixPath(path), text)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("plugins/module_utils/engine/undo.py", "import os\nfrom . import errors\nfrom .trace import calls\nfrom .store import Store"),
        ("plugins/module_utils/engine/trace/capture.py", "from .. import undolog\nfrom ..store import Store\nfrom . import calls"),
        ("plugins/module_utils/engine/journal/database.py", "import sqlite3\nq = 'select state from tx'"),
        ("plugins/module_utils/engine/journal/steps.py", "from .transactions import Transactions\nq = 'select state from tx'"),
        ("plugins/module_utils/engine/probes/systemd.py", "from ..commands import run\nfrom .base import Probe"),
        ("plugins/module_utils/engine/probes/registry.py", "from . import systemd\nfrom .mounts import Mounts"),
        ("plugins/plugin_utils/hooks.py", "from ansible.plugins import loader\nfrom ..module_utils.engine import errors, states"),
        ("plugins/action/tx_begin.py", "from ansible_collections.acid.host.plugins.module_utils.engine.errors import AcidError"),
        ("tests/lab/acidlab/oracle.py", "import json\nfrom . import model\nfrom .run import run"),
    ],
)
def test_no_rule_minds_what_is_allowed(path: str, text: str) -> None:
    assert [complaint for rule in RULES for complaint in rule(Source(PurePosixPath(path), text))] == []
