# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from engine.errors import Usage
from engine.probes.base import NOTHING, Circumstances, Outcome, ours
from engine.probes.registry import AFTER_FILES, BEFORE_FILES, NAMES, Probes
from engine.probes.service_directories import parse


def names(probes: Probes) -> set[str]:
    return {probe.name for probe in probes.before_files()}


@pytest.mark.parametrize("option", [NAMES, "all", ["all"], ["systemd", "all"], ",".join(NAMES)])
def test_all_of_them(option) -> None:
    assert names(Probes(option)) == set(NAMES)


def test_some_of_them_in_the_registrys_order() -> None:
    probes = Probes("hostname, systemd")
    assert [probe.name for probe in probes.before_files()] == ["systemd", "hostname"]
    assert [probe.name for probe in probes.after_files()] == ["hostname", "systemd"]
    assert probes.before_files()[0] is probes.after_files()[1], "what a probe learns before the files it needs after them"


def test_an_unknown_one_is_named() -> None:
    with pytest.raises(Usage, match="'weather'") as raised:
        Probes(["systemd", "weather"])
    assert "nftables" in raised.value.hint


def test_both_phases_have_every_probe() -> None:
    assert set(BEFORE_FILES) == set(AFTER_FILES)
    assert len(NAMES) == len(BEFORE_FILES)


def test_outcomes_add_up() -> None:
    one, two = Outcome(actions=("a",), units=("x", "y")), Outcome(failures=("f",), notes=("n",), units=("y", "z"))
    assert one + two == Outcome(("a",), ("f",), ("n",), ("x", "y", "z"))
    assert NOTHING + one == one


def test_windows_have_room_for_the_kernels_clock_and_for_daemons() -> None:
    second = 10**9
    circumstances = Circumstances(windows=((10 * second, 11 * second), (20 * second, 21 * second)))
    times = {9.9: False, 9.99: True, 10.5: True, 12.9: True, 13.1: False, 19.99: True, 24: False}
    assert {at: circumstances.by_a_step(int(at * second)) for at in times} == times
    assert Circumstances().by_a_step(5)


def test_directories_of_services_that_are_down() -> None:
    text = (
        "ActiveState=inactive\nStateDirectory=born born/sub other:alias\nLogsDirectory=born\nConfigurationDirectory=born\n\n"
        "ActiveState=active\nStateDirectory=other\nCacheDirectory=runs\nLogsDirectory=\nConfigurationDirectory=\n"
    )
    found = parse(text)
    assert {path for path in found if "private" not in path} == {"/var/lib/born", "/var/log/born", "/etc/born", "/var/lib/alias"}
    assert "/var/lib/private/born" in found


def test_what_an_undo_may_touch() -> None:
    before, now = {"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 1, "d": 4}
    assert ours(before, now, None) == (("a", "c", "d"), ())
    # After a commit: a is as the transaction left it; c went and d came later; b was changed, and somebody has changed it back.
    assert ours(before, now, {"a": 2, "b": 2, "c": 1}) == (("a",), ())
    # Somebody has changed the transaction's own a again.
    assert ours(before, now, {"a": 3, "b": 1, "c": 1}) == ((), ("a",))
