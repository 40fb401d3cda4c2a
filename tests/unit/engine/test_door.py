# SPDX-License-Identifier: GPL-3.0-or-later
"""The file by which a shell asks for a rollback: what counts as asked, who may, and what is left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from engine.door import Door

TX, TOKEN = "20260101-00000000", 7
NOBODY = 65534


@pytest.fixture
def places(sandbox: Path) -> tuple[str, str]:
    (sandbox / "acid").mkdir(mode=0o700)
    for folder in (sandbox, sandbox.parent):  # other users have to get as far as to the door
        folder.chmod(0o711)
    return str(sandbox / "acid" / "door"), str(sandbox / "acid-door")


@pytest.fixture
def door(places: tuple[str, str]) -> Door:
    return Door(*places)


def line(opened: dict[str, str], *, tx: str = TX, token: int = TOKEN) -> str:
    return f"acid rollback {tx} {token} {opened['secret']} end\n"


@pytest.mark.parametrize("uid", [0, NOBODY])
def test_a_whole_line_is_asked_once(door: Door, uid: int) -> None:
    opened = door.open(TX, TOKEN, uid)
    assert door.asked() is None
    Path(opened["file"]).write_text(line(opened))
    assert door.asked() == (TX, TOKEN)
    assert door.asked() is None


def test_half_a_line_is_nothing(door: Door) -> None:
    opened = door.open(TX, TOKEN, 0)
    whole = line(opened)
    for at in range(len(whole)):
        Path(opened["file"]).write_text(whole[:at])
        assert door.asked() is None, at
    Path(opened["file"]).write_text(whole)
    assert door.asked() == (TX, TOKEN)


def test_a_line_with_anything_else_is_nothing(door: Door) -> None:
    opened = door.open(TX, TOKEN, 0)
    whole = line(opened)
    others = [
        whole.replace(opened["secret"], "0" * 32),
        whole.replace(opened["secret"], ""),
        line(opened, tx="other"),
        line(opened, token=6),
    ]
    for wrong in [*others, whole.replace("rollback", "commit"), whole + "x", whole + whole, whole.replace(" ", "  ", 1), "\0" * 4096]:
        Path(opened["file"]).write_text(wrong)
        assert door.asked() is None, wrong


@pytest.mark.parametrize("kind", ["link", "pipe", "gone", "directory"])
def test_what_is_not_our_file_is_nothing_and_holds_nobody_up(door: Door, tmp_path: Path, kind: str) -> None:
    opened = door.open(TX, TOKEN, 0)
    os.unlink(opened["file"])
    if kind == "link":
        (tmp_path / "elsewhere").write_text(line(opened))
        os.symlink(tmp_path / "elsewhere", opened["file"])
    elif kind == "pipe":
        os.mkfifo(opened["file"])
    elif kind == "directory":
        os.mkdir(opened["file"])
    assert door.asked() is None


def modes(place: str) -> dict[str, tuple[int, int]]:
    return {name: (os.stat(f"{place}/{name}").st_uid, os.stat(f"{place}/{name}").st_mode & 0o777) for name in os.listdir(place)}


def test_whose_the_files_are(door: Door, places: tuple[str, str]) -> None:
    private, public = places
    umask = os.umask(0)
    try:
        door.open(TX, TOKEN, NOBODY)
        door.tell(TX, {"tx": TX})
    finally:
        os.umask(umask)
    assert [os.stat(place).st_mode & 0o777 for place in places] == [0o700, 0o711]
    assert modes(private) == {f"{TX}.secret": (0, 0o600)}
    assert modes(public) == {TX: (NOBODY, 0o600), f"{TX}.told": (NOBODY, 0o600)}


def test_a_login_that_is_root_has_a_door_that_only_root_can_see(door: Door, places: tuple[str, str]) -> None:
    door.open(TX, TOKEN, 0)
    assert not os.path.exists(places[1])
    assert modes(places[0]) == {TX: (0, 0o600), f"{TX}.secret": (0, 0o600)}


def test_another_user_can_neither_ask_nor_listen(door: Door) -> None:
    opened = door.open(TX, TOKEN, NOBODY)
    door.tell(TX, {"tx": TX})
    folder = os.path.dirname(opened["file"])
    user = ["setpriv", "--reuid=65533", "--clear-groups", "sh", "-c"]
    subprocess.run([*user, f"[ -d {folder} ] && [ -f {opened['file']}.told ]"], check=True)
    for attempt in (
        f"echo x > {opened['file']}",
        f"read x < {opened['file']}.told",
        f"rm -f {opened['file']}",
        f"ls {folder}",
        f"> {folder}/x",
    ):
        done = subprocess.run([*user, attempt], check=False, capture_output=True)
        assert done.returncode != 0, attempt


def test_builtins_of_a_shell_are_enough(door: Door) -> None:
    opened = door.open(TX, TOKEN, NOBODY)
    shell = ["setpriv", "--reuid=65534", "--clear-groups", "/bin/sh", "-c"]
    ask = f"PATH=/nowhere; [ -f {opened['file']} ] && echo '{line(opened).strip()}' > {opened['file']}"
    subprocess.run([*shell, ask], check=True)
    assert door.asked() == (TX, TOKEN)
    door.tell(TX, {"tx": TX, "state": "ABORTED"})
    listen = f'PATH=/nowhere; while IFS= read -r line; do echo "$line"; done < {opened["file"]}.told'
    assert (
        subprocess.run([*shell, listen], check=True, stdout=subprocess.PIPE).stdout == b'{"tx": "%s", "state": "ABORTED"}\n' % TX.encode()
    )


def test_the_next_agent_takes_it_over(door: Door, places: tuple[str, str]) -> None:
    opened = door.open(TX, TOKEN, NOBODY)
    Path(opened["file"]).write_text(line(opened))
    successor = Door(*places)
    assert successor.asked() is None
    successor.adopt()
    assert successor.is_awaited(), "it may be idle before it is asked"
    assert successor.asked() == (TX, TOKEN)


def test_nothing_is_left(door: Door, places: tuple[str, str]) -> None:
    door.open(TX, TOKEN, NOBODY)
    door.open("another", TOKEN + 1, 0)
    door.tell(TX, {"tx": TX})
    assert door.is_awaited()
    door.tidy("another")
    assert modes(places[0]).keys() == {"another", "another.secret"}
    door.tidy(None)
    assert not any(map(os.path.exists, places))
