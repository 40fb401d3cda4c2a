# SPDX-License-Identifier: GPL-3.0-or-later
"""The option `probes` as the host reads it, and a user's own probe."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.errors import ProbeFailed, Usage
from engine.probes.base import NOTHING, Circumstances
from engine.probes.choice import OwnCommands
from engine.probes.own import LARGEST, Own
from engine.probes.registry import NAMES, Probes, choose

OWN = {"name": "app", "capture": ["appctl", "export"], "restore": "appctl 'im port'"}


def test_mappings_alone_leave_all_the_others_on() -> None:
    choice = choose([OWN, {"name": "etc", "trees": ["/opt/conf"]}])
    assert choice.names == NAMES
    assert choice.trees == (b"/opt/conf",)
    assert choice.own == (OwnCommands("app", ("appctl", "export"), ("appctl", "im port")),)
    assert choose(OWN).own == choice.own
    assert [probe.name for probe in Probes(["hostname", OWN]).after_files()] == ["hostname", "app"]
    assert set(choose(["hostname", {"name": "etc", "trees": ["/opt/conf"]}]).names) == {"hostname", "etc"}


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ([3], "has 3, which is neither"),
        ([{**OWN, "name": "systemd"}], "'systemd' is taken"),
        ([OWN, OWN], "'app' is taken"),
        ([{**OWN, "name": "../x"}], "is not a name"),
        ([{"capture": "x", "restore": "x"}], "name None is not a name"),
        ([{**OWN, "extra": 1}], "unknown key 'extra'"),
        ([{**OWN, "timeout": True}], "timeout True"),
        ([{**OWN, "timeout": 1e9}], "timeout"),
        ([{**OWN, "capture": ""}], "needs a capture"),
        ([{**OWN, "capture": "unclosed 'quote"}], "no command: No closing"),
        ([{**OWN, "restore": ["x", 3]}], "needs a restore"),
        ([{**OWN, "restore": 3}], "no command"),
        ([{"name": "etc", "trees": "/x"}], "takes a list of trees"),
        ([{"name": "etc", "trees": ["/x/"]}], "absolute paths"),
        ([{"name": "etc", "trees": ["/"]}], "absolute paths"),
        ([{"name": "etc", "trees": ["/x/../y"]}], "absolute paths"),
        ("weather", "no probe 'weather'"),
    ],
)
def test_what_is_wrong_is_said(option, sentence: str) -> None:
    with pytest.raises(Usage) as raised:
        choose(option)
    assert sentence in str(raised.value)


@pytest.fixture
def state(sandbox: Path) -> Path:
    path = sandbox / "state"
    path.write_bytes(b"first \xff\x00\n")
    return path


@pytest.fixture
def probe(state: Path) -> Own:
    return Own(OwnCommands("app", ("cat", str(state)), ("tee", str(state))))


def test_bytes_go_through_as_they_are(probe: Own, state: Path) -> None:
    before = probe.capture()
    assert probe.after_files(before, Circumstances()) == NOTHING
    state.write_bytes(b"second")
    assert len(probe.compare(before, probe.capture())) == 1
    assert probe.after_files(before, Circumstances()).failures == ()
    assert state.read_bytes() == b"first \xff\x00\n"
    assert probe.compare(before, probe.capture()) == []


def test_after_a_commit(probe: Own, state: Path) -> None:
    before = probe.capture()
    state.write_bytes(b"ours")
    left = Circumstances(left=probe.capture())
    state.write_bytes(b"theirs")
    assert "after the commit" in probe.after_files(before, left).notes[0]
    assert probe.compare(before, probe.capture(), left) == []
    state.write_bytes(b"ours")
    probe.after_files(before, left)
    assert state.read_bytes() == b"first \xff\x00\n"


def test_a_capture_that_fails_or_floods(sandbox: Path) -> None:
    for command, sentence in (
        (("cat", str(sandbox / "missing")), "No such file"),
        (("no-such-program-here",), "No such file"),
        (("head", "-c", str(LARGEST + 1), "/dev/zero"), "at most"),
        (("sleep", "20"), "did not end within 0.2 seconds"),
    ):
        with pytest.raises(ProbeFailed, match="your probe") as raised:
            Own(OwnCommands("app", command, ("true",), 0.2 if command[0] == "sleep" else 20)).capture()
        assert sentence in str(raised.value)


def test_a_restore_that_fails_or_does_nothing(probe: Own, state: Path) -> None:
    before = probe.capture()
    state.write_bytes(b"second")
    for restore, failures in (("false", 1), ("true", 0)):
        broken = Own(OwnCommands("app", ("cat", str(state)), (restore,)))
        assert len(broken.after_files(before, Circumstances()).failures) == failures
        assert len(broken.compare(before, broken.capture())) == 1, "believed only when it is seen"
