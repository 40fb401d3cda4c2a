# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for the tests of the engine itself: one lab for the session, a host for each file system, made when the first test asks for it.

`rig` is a host on btrfs with gcc's image, `ext4` and `xfs` hosts on those; each test gets an empty folder `rig.root` on it (rig.py).
RIG_LAB=name in the environment: use that lab's hosts, make those that are missing, and leave it up.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator

import pytest
from rig import Rig, Rigs, compile_program


@functools.cache
def shared() -> Rigs:
    kept = os.environ.get("RIG_LAB", "")
    return Rigs(kept or f"rig{os.getpid()}", keep=bool(kept))


@pytest.fixture(scope="module")
def rigs(request: pytest.FixtureRequest) -> Rigs:
    if shared().open():
        request.config.add_cleanup(shared().close)
    return shared()


@pytest.fixture
def rig(rigs: Rigs) -> Iterator[Rig]:
    yield from rigs.test("btrfs")


@pytest.fixture
def ext4(rigs: Rigs) -> Iterator[Rig]:
    yield from rigs.test("ext4")


@pytest.fixture(params=["btrfs", "ext4", "xfs"])
def any_rig(rigs: Rigs, request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from rigs.test(request.param)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """compiled("int80.c", "-static") -> the program, from engine/src."""
    folder = tmp_path_factory.mktemp("compiled")
    return lambda name, *flags: compile_program(folder, name, *flags)
