# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/invariants.md says which files keep each invariant: they exist and cite its number. What it says is not kept yet, no file cites."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
ROWS = re.findall(r"^\| (I\d) \| (.*) \| (.*) \|$", (TOP / "docs" / "invariants.md").read_text(encoding="utf-8"), re.MULTILINE)


def citing(number: str) -> list[str]:
    plugins = TOP / "plugins"
    found = [path for path in sorted(plugins.rglob("*.py")) if re.search(rf"\b{number}\b", path.read_text(encoding="utf-8"))]
    return [path.relative_to(plugins).as_posix() for path in found]


def test_all_nine_are_there() -> None:
    assert [number for number, dummy, kept in ROWS] == [f"I{count}" for count in range(1, 10)]


@pytest.mark.parametrize(("number", "kept"), [(number, kept) for number, dummy, kept in ROWS])
def test_files_cite_what_they_keep(number: str, kept: str) -> None:
    files = re.findall(r"`(module_utils/[^`]+|plugin_utils/[^`]+)`", kept)
    if kept.startswith("not yet"):
        assert not citing(number), f"{number}: it is cited, so name the files that keep it"
        return
    assert files, f"{number}: name the files that keep it, or say: not yet, and why"
    for name in files:
        assert name in citing(number), f"{name} does not cite {number}"
