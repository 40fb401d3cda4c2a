# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.acid.host.plugins.plugin_utils import connections

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "connections.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, str]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", section, re.MULTILINE))


def test_the_page_names_what_is_accepted_and_refused() -> None:
    assert {name: what.replace("`", "") for name, what in rows("Accepted").items()} == connections.SUPPORTED
    assert rows("Refused") == connections.REFUSED
