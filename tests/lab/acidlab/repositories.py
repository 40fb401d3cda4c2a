# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path


def build_repositories(root: Path) -> None:
    (root / "srv/repo/apt").mkdir(parents=True, exist_ok=True)
