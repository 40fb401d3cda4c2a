# SPDX-License-Identifier: GPL-3.0-or-later
"""fixtures/systemd: a lab host (Debian 12) before and after: lab-a restarted, lab-b reloaded, lab-c stopped, lab-e started, lab-o (oneshot,
stays) restarted, lab-run made by systemd-run, all within `window`; outside of it lab-d restarted itself, lab-t.timer started lab-t, and
lab-f was written and failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine.probes.unitstate import ABSENT, PROPERTIES, Clock, Unit, concerns, kept_up, moves, parse

FIXTURES = Path(__file__).parent / "fixtures" / "systemd"
BEFORE = parse((FIXTURES / "before.txt").read_text())
AFTER = parse((FIXTURES / "after.txt").read_text())
START, END = (round(float(line) * 1e6) for line in (FIXTURES / "window").read_text().split())


def in_window(us: int) -> bool:
    return START - 20_000 <= us <= END + 20_000


def unit(**fields) -> Unit:
    return Unit(**{"load": "loaded", "active": "active", "invocation": "1", "type": "simple", "times": (5, 5, 5, 0, 0), **fields})


def test_parse_reads_every_paragraph() -> None:
    assert len(AFTER) == sum(line.startswith("Id=") for line in (FIXTURES / "after.txt").read_text().splitlines()) == 71
    cron = AFTER["cron.service"]
    assert (cron.load, cron.active, cron.type, cron.can_reload) == ("loaded", "active", "simple", False)
    assert len(cron.invocation) == 32
    assert cron.times[0] > 0
    assert AFTER["lab-d.service"].restarts > BEFORE["lab-d.service"].restarts
    assert AFTER["lab-t.service"].triggered_by == ("lab-t.timer",)
    assert AFTER["lab-run.service"].transient
    assert set(PROPERTIES) >= {"Id", "InvocationID", "StateChangeTimestampMonotonic"}


def test_an_image_survives_json() -> None:
    for one in AFTER.values():
        assert Unit.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_what_steps_moved_and_nothing_else() -> None:
    found = moves(BEFORE, AFTER, clock=Clock(in_window, in_window))
    assert found.stop == ("lab-e.service", "lab-run.service")
    assert found.start == ("lab-c.service",)
    assert found.restart == ("lab-a.service", "lab-o.service")
    assert found.reload == ("lab-b.service",)
    assert found.reset == ()


def test_without_times_a_failure_counts_but_timers_and_restart_policies_do_not() -> None:
    found = moves(BEFORE, AFTER)
    assert found.reset == ("lab-f.service",)
    assert "lab-d.service" not in found.names
    assert not any(name.startswith("lab-t.") for name in found.names)


def test_what_a_timer_runs_counts_when_the_timer_did_not_fire() -> None:
    quiet = dict(AFTER)
    quiet["lab-t.timer"] = AFTER["lab-t.timer"]._replace(triggered=BEFORE["lab-t.timer"].triggered)
    assert "lab-t.service" in moves(BEFORE, quiet).stop


def test_what_a_timer_runs_counts_when_a_step_started_the_timer_anew() -> None:
    moved = dict(AFTER)
    moved["lab-t.timer"] = AFTER["lab-t.timer"]._replace(invocation="another")
    assert "lab-t.service" in moves(BEFORE, moved).stop


def test_a_start_takes_a_daemon_that_was_asked_and_an_end_does_not() -> None:
    in_a_step_that_asked_nobody = Clock(in_window, lambda us: False)
    found = moves(BEFORE, AFTER, clock=in_a_step_that_asked_nobody)
    assert (found.stop, found.restart) == ((), ())
    assert found.start == ("lab-c.service",)
    activated = {**AFTER, "lab-e.service": AFTER["lab-e.service"]._replace(triggered_by=("lab-e.socket",))}
    assert moves(BEFORE, activated, clock=in_a_step_that_asked_nobody).stop == ("lab-e.service",)


def test_nothing_moved_is_nothing() -> None:
    assert moves(BEFORE, BEFORE).names == frozenset()


def test_back_again_is_the_opposite() -> None:
    found = moves(AFTER, BEFORE)
    assert "lab-c.service" in found.stop
    assert {"lab-e.service", "lab-run.service"} <= set(found.start)


def test_after_a_reboot_invocations_say_nothing() -> None:
    found = moves(BEFORE, AFTER, rebooted=True)
    assert (found.restart, found.reload) == ((), ())
    assert "lab-c.service" in found.start


@pytest.mark.parametrize(
    ("name", "was", "now", "field"),
    [
        ("x.service", ABSENT, unit(), "stop"),
        ("x.service", ABSENT, unit(active="activating", type="oneshot"), None),
        ("x.service", unit(), ABSENT, "start"),
        ("x.service", unit(), unit(invocation="2"), None),
        ("x.target", ABSENT, unit(), None),
        ("x.target", unit(), ABSENT, None),
    ],
)
def test_one_unit_after_a_reboot(name: str, was: Unit, now: Unit, field: str | None) -> None:
    found = moves({name: was}, {name: now}, rebooted=True)
    assert [name for name in found._fields if getattr(found, name)] == ([field] if field else [])


def test_after_a_reboot_what_a_timer_that_fired_runs_is_the_timers() -> None:
    timers = {"x.timer": unit(triggered="0")}, {"x.timer": unit(triggered="12s", invocation="2")}
    running = {"x.service": unit(triggered_by=("x.timer",))}
    assert moves(timers[0], {**timers[1], **running}, rebooted=True).stop == ()
    assert moves(timers[0], {**timers[0], **running}, rebooted=True).stop == ("x.service",)


@pytest.mark.parametrize(
    ("was", "now", "field"),
    [
        (ABSENT, unit(), "stop"),
        (unit(active="failed"), unit(active="failed", invocation="2"), None),
        (unit(active="inactive"), unit(active="activating"), "stop"),
        (unit(active="inactive"), unit(refuses_stop=True), None),
        (unit(), ABSENT, "start"),
        (unit(), unit(active="inactive"), "start"),
        (unit(), unit(active="deactivating"), "start"),
        (unit(refuses_start=True), unit(active="inactive"), None),
        (unit(), unit(active="activating"), "restart"),
        (unit(), unit(invocation="2"), "restart"),
        (unit(), unit(invocation="2", restarts=1), None),
        (unit(), unit(invocation="2", refuses_stop=True), None),
        (unit(restarts=4), unit(invocation="2", restarts=0), "restart"),
        (unit(), unit(can_reload=True, times=(9, 5, 5, 0, 0)), "reload"),
        (unit(), unit(times=(9, 5, 5, 0, 0)), None),
        (unit(active="activating"), unit(active="inactive"), None),
        (unit(active="activating"), unit(), None),
        (unit(), unit(), None),
    ],
)
def test_one_unit(was: Unit, now: Unit, field: str | None) -> None:
    found = moves({"x.service": was}, {"x.service": now})
    assert [name for name in found._fields if getattr(found, name)] == ([field] if field else [])


def test_a_failure_that_the_transaction_mended_or_forgot_is_to_be_one_again() -> None:
    found = moves({"x.service": unit(active="failed")}, {"x.service": unit()})
    assert (found.stop, found.fail) == (("x.service",), ("x.service",))
    assert moves({"x.service": unit(active="failed")}, {}).fail == ("x.service",)
    later = moves(
        {"x.service": unit(active="failed")}, {"x.service": unit(times=(9, 9, 9, 0, 0))}, clock=Clock(lambda us: us < 9, lambda us: us < 9)
    )
    assert later.names == frozenset()


def test_a_unit_that_failed_in_the_transaction_is_started_and_its_failure_forgotten() -> None:
    found = moves({"x.service": unit()}, {"x.service": unit(active="failed")})
    assert (found.start, found.reset) == (("x.service",), ("x.service",))


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("cron.service", True),
        ("dbus.socket", True),
        ("apt-daily.timer", True),
        ("system-lab.slice", True),
        ("lab-deep.slice", True),
        ("system.slice", False),
        ("system-acid\\x2dagent.slice", False),
        ("user-0.slice", False),
        ("session-3.scope", False),
        ("dev-sda.device", False),
        ("mnt.mount", False),
        ("user@0.service", False),
        ("ssh@3-10.0.0.1:22-10.0.0.2:40000.service", False),
        ("acid-agent.service", False),
        ("acid-recover.service", False),
        ("acid-svc.service", True),
    ],
)
def test_units_that_concern_us(name: str, ours: bool) -> None:
    assert concerns(name) is ours


def test_what_carries_the_host_is_not_kept_down() -> None:
    assert all(kept_up(name) for name in ("dbus.service", "ssh.service", "systemd-journald.service", "NetworkManager.service"))
    assert not any(kept_up(name) for name in ("cron.service", "nginx.service", "sshguard.service"))
