# SPDX-License-Identifier: GPL-3.0-or-later
"""What services leave in /run."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from engine.kernel import Reader
from engine.probes import leavings
from engine.probes.base import LATE_NS, Circumstances

SECOND = 10**9
NOBODY = leavings.Alive(frozenset(), frozenset(), frozenset())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    return tmp_path


def now() -> Circumstances:
    at = time.time_ns()
    return Circumstances(windows=((at - SECOND, at + SECOND),), asked=((at - SECOND, at + SECOND),))


def remaining(place: Path, before: leavings.Names, circumstances: Circumstances, *, left: leavings.Names | None = None) -> list[str]:
    leavings.gone_again(leavings.born(before, left), circumstances)
    return sorted(path.name for path in place.iterdir())


def dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def test_what_is_dead_goes(place: Path) -> None:
    before = leavings.look((str(place),))
    (place / "old" / "inner").mkdir()
    (place / "new" / "socks").mkdir(parents=True)
    dead_socket(place / "new" / "socks" / "a")
    (place / "new" / "conf").symlink_to("/etc")
    os.mkfifo(place / "new" / "pipe")
    dead_socket(place / "b")
    (place / "c.pid").write_text("4194305\n")  # above the highest pid there is
    assert remaining(place, before, now()) == ["old"]
    assert (place / "old" / "inner").is_dir()


def test_what_may_be_of_use_stays(place: Path) -> None:
    before = leavings.look((str(place),))
    (place / "new" / "deep" / "er").mkdir(parents=True)
    (place / "new" / "deep" / "flag").touch()
    (place / "link").symlink_to("old")
    (place / "live.pid").write_text(f"{os.getpid()}\n")
    (place / "number").write_text("4194305\n")
    (place / "reboot-required").write_text("yes\n")
    assert remaining(place, before, now()) == ["link", "live.pid", "new", "number", "old", "reboot-required"]
    assert (place / "new" / "deep" / "er").is_dir()


def test_what_processes_use_stays(place: Path) -> None:
    before = leavings.look((str(place),))
    (place / "new").mkdir()
    (place / "piped").mkdir()
    os.mkfifo(place / "piped" / "pipe")
    folder, pipe = os.open(place / "new", os.O_RDONLY), os.open(place / "piped" / "pipe", os.O_RDWR)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(place / "bound"))
        assert remaining(place, before, now()) == ["bound", "new", "old", "piped"]
    os.close(folder)
    os.close(pipe)
    assert remaining(place, before, now()) == ["old"]


def test_what_a_running_unit_names_stays(place: Path) -> None:
    (place / "new").mkdir()
    named = NOBODY._replace(directories=frozenset((str(place / "new"),)))
    assert leavings.gone_again([f"{place}/new"], now(), in_use=lambda: named).actions == ()
    assert leavings.gone_again([f"{place}/new"], now(), in_use=lambda: NOBODY).actions == (f"{place}/new is gone again",)


def test_what_others_have_made_stays(place: Path) -> None:
    before = leavings.look((str(place),))
    (place / "new").mkdir()
    assert remaining(place, before, Circumstances(windows=((1, 2),), asked=((1, 2),))) == ["new", "old"], "no step had asked anybody then"
    assert remaining(place, before, now(), left=before) == ["new", "old"], "it was not there at the commit"


def test_what_a_service_makes_later_goes_with_its_directory(place: Path) -> None:
    before = leavings.look((str(place),))
    (place / "new").mkdir()
    then = Reader().stat(-100, os.fsencode(place / "new")).btime
    time.sleep(0.1)
    dead_socket(place / "new" / "late")
    dead_socket(place / "late")
    until = then + 10**7 - LATE_NS
    circumstances = Circumstances(windows=((then, until),), asked=((then, until),))
    assert remaining(place, before, circumstances, left=leavings.look((str(place),))) == ["late", "old"], "alone it is somebody else's"


@pytest.mark.parametrize("swapped", ["new/inner", "new"])
def test_a_symlink_that_has_come_instead_of_a_directory_leads_nowhere(place: Path, swapped: str) -> None:
    """Between the look and the removal the service's user has put one there."""
    elsewhere = place / "old"
    for folder in (place / "new", elsewhere):
        (folder / "inner").mkdir(parents=True)
        dead_socket(folder / "socket")
        dead_socket(folder / "inner" / "socket")

    def swap() -> leavings.Alive:
        os.rename(place / swapped, place / "away")
        (place / swapped).symlink_to(elsewhere / Path(swapped).relative_to("new"))
        return NOBODY

    leavings.gone_again([f"{place}/new"], now(), in_use=swap)
    assert (elsewhere / "socket").is_socket() and (elsewhere / "inner" / "socket").is_socket()
    assert (place / "away").is_dir() and (place / swapped).is_symlink()


def test_what_is_put_in_at_the_last_moment_stays(place: Path) -> None:
    (place / "new" / "inner").mkdir(parents=True)

    def put() -> leavings.Alive:
        (place / "new" / "inner" / "theirs").touch()
        return NOBODY

    assert leavings.gone_again([f"{place}/new"], now(), in_use=put).actions == ()
    assert (place / "new" / "inner" / "theirs").is_file()


def test_directories_of_units_that_run() -> None:
    text = (
        "ActiveState=inactive\nRuntimeDirectory=down\n\n"
        "ActiveState=active\nRuntimeDirectory=sshd one/two:alias lock/three\n\nActiveState=activating\nRuntimeDirectory=\n"
    )
    assert leavings.kept(text) == {"/run/sshd", "/run/one", "/run/alias", "/run/lock", "/run/lock/three"}


def test_names_of_sockets() -> None:
    text = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01 21384 /run/a b.sock\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 21385\n"
    )
    assert leavings.bound(text) == {"/run/a b.sock"}
