# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine leaves out by default is no more than what the oracle leaves out: else a difference would go unseen."""

from __future__ import annotations

import re

import pytest
from acidlab import volatile
from engine.trace.scope import CONTENTS_LEFT, OUTSIDE_PATHS


def left_out(path: str, *parts: str) -> bool:
    return any(re.fullmatch(rule.pattern, path, re.DOTALL) for rule in volatile.PATHS if rule.part in parts)


@pytest.mark.parametrize("path", OUTSIDE_PATHS)
def test_paths_outside_the_trace_are_the_engines_own(path: bytes) -> None:
    assert left_out(path.decode(), volatile.ABSENT)


@pytest.mark.parametrize("path", CONTENTS_LEFT)
@pytest.mark.parametrize("below", ["/a.log", "/folder/b"])
def test_contents_that_are_left_are_not_compared(path: bytes, below: str) -> None:
    assert left_out(path.decode() + below, volatile.CONTENT, volatile.ABSENT)


def test_a_path_that_nobody_names_counts() -> None:
    assert not left_out("/etc/passwd", volatile.CONTENT, volatile.ABSENT)
