# SPDX-License-Identifier: GPL-3.0-or-later
"""What each file of the project has, checked on what git lists."""

from __future__ import annotations

import ast
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
LICENSED = {".py", ".sh", ".yml", ".yaml", ".toml", ".cfg", ".ini"}
INPUT = "tests/scenarios/plays/"  # what plays carry to hosts
LICENCE = ("GPL-3.0-or-later", "GNU General Public License v3.0+")
NEWCOMER = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "docs/glossary.md", "docs/invariants.md")
GENERATED = {"changelogs/changelog.yaml"}


@lru_cache(maxsize=1)
def listed() -> tuple[str, ...]:
    # safe.directory: a checkout may belong to another user than root, who runs the tests.
    command = ["git", "-c", f"safe.directory={TOP}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=TOP, capture_output=True, check=True).stdout
    return tuple(sorted(name for name in output.decode().split("\0") if name and (TOP / name).is_file()))


def head(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8", errors="replace")[:600]


def test_git_lists_the_project() -> None:
    assert "tests/unit/test_layout.py" in listed()


def test_sources_name_their_licence() -> None:
    own = [name for name in listed() if Path(name).suffix in LICENSED and not name.startswith(INPUT) and name not in GENERATED]
    # An empty __init__.py has nothing to license.
    missing = [name for name in own if (TOP / name).stat().st_size and not any(words in head(name) for words in LICENCE)]
    assert missing == [], "add the line: # SPDX-License-Identifier: GPL-3.0-or-later"


def test_python_files_postpone_annotations() -> None:
    def postpones(name: str) -> bool:
        nodes = ast.parse((TOP / name).read_text(encoding="utf-8")).body
        code = [node for node in nodes if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
        return not code or any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in code)

    own = [name for name in listed() if name.endswith(".py") and not name.startswith(INPUT) and (TOP / name).stat().st_size]
    assert [name for name in own if not postpones(name)] == []


@pytest.mark.parametrize("name", NEWCOMER)
def test_what_a_newcomer_looks_for_is_there(name: str) -> None:
    assert (TOP / name).stat().st_size > 100


def test_built_collection_leaves_the_workshop_out() -> None:
    galaxy = yaml.safe_load((TOP / "galaxy.yml").read_text(encoding="utf-8"))
    assert {".build", ".ci", "requirements", "site.yml", "tests"} <= set(galaxy["build_ignore"])
    assert {"plugins", "roles", "playbooks", "meta", "docs"}.isdisjoint(galaxy["build_ignore"])


def test_locks_cover_what_is_asked_for() -> None:
    lines = (TOP / "requirements/direct.txt").read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if line and not line.startswith("#")]
    for lock in sorted((TOP / "requirements").glob("lock-*.txt")):
        locked = {line.split("==")[0].lower().replace("_", "-") for line in lock.read_text(encoding="utf-8").splitlines() if "==" in line}
        assert {name.lower() for name in asked} <= locked, f"{lock.name}: run tests/run/relock"
