# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd probe against a systemctl that is played back from fixtures/systemd; tests/host/test_probes.py has the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.commands import Output
from engine.errors import ProbeFailed
from engine.probes import systemctl, systemd
from engine.probes.base import Circumstances
from engine.probes.systemd import Systemd
from engine.probes.unitpaths import is_read_by_systemd
from engine.probes.unitstate import concerns, parse

FIXTURES = Path(__file__).parent / "fixtures" / "systemd"
BEFORE = (FIXTURES / "before.txt").read_text()
AFTER = (FIXTURES / "after.txt").read_text()
NOW = Circumstances()


class Played:
    """Answers `show` with one text after the other, the last for ever; notes what else was asked."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.asked = list(texts), []
        self.code = 0
        self.down: dict[str, str] = {}
        self.told = ""

    def __call__(self, argv: list[str], *, timeout: float) -> Output:
        assert timeout > 0
        if argv[0] == "journalctl":
            return Output(0, self.told, "")
        assert argv[:3] == ["systemctl", "--no-pager", "--no-ask-password"]
        args = argv[3:]
        if args[0] == "show" and "*" in args:
            if "--state=failed" in args or "--property=Slice" in args:
                return Output(0, "", "")
            return Output(self.code, self.texts.pop(0) if len(self.texts) > 1 else self.texts[0], "no answer")
        if args[0] == "show" and "--" in args:
            return Output(0, self.named(args[args.index("--") + 1 :]), "")
        self.asked.append(" ".join(args))
        return Output(self.code, "", "no answer")

    def named(self, names: list[str]) -> str:
        """Of units that are down, asked by name: what was given by `down`."""
        return "\n".join(f"Id={name}\nActiveState=inactive\n{self.down.get(name, '')}" for name in names)


@pytest.fixture
def played(monkeypatch):
    def play(*texts: str) -> Played:
        one = Played(*texts)
        monkeypatch.setattr(systemctl, "run", one)
        monkeypatch.setattr(systemd.os.path, "isdir", lambda path: path == "/run/systemd/system")
        return one

    return play


def image(text: str) -> dict:
    units = {name: unit.to_json() for name, unit in parse(text).items() if concerns(name)}
    return {"managed": True, "units": units, "transient": {}, "users": {}, "lingering": [], "shelves": {}}


def test_before_the_files_everything_started_or_restarted_stops(played) -> None:
    asked = played(AFTER, BEFORE).asked
    outcome = Systemd().before_files(image(BEFORE), NOW)
    assert asked == ["stop -- lab-e.service lab-run.service lab-a.service lab-o.service"]
    assert "stopped lab-e.service" in outcome.actions


def test_what_did_not_stop_is_said(played) -> None:
    played(AFTER)
    outcome = Systemd().before_files(image(BEFORE), NOW)
    assert any("lab-a.service did not stop" in failure for failure in outcome.failures)


def test_what_was_started_again_meanwhile_is_stopped_or_restarted_when_the_files_are_back(played) -> None:
    asked = played(AFTER).asked
    Systemd().after_files(image(BEFORE), NOW)
    assert asked[:2] == ["daemon-reload", "stop -- lab-e.service lab-run.service"]
    assert "restart -- lab-a.service lab-o.service" in asked


def test_after_the_files_one_call_for_each_kind(played) -> None:
    asked = played(AFTER, BEFORE).asked
    outcome = Systemd().after_files(image(BEFORE), NOW)
    assert asked[0] == "daemon-reload", "always, and first"
    assert "reset-failed -- lab-f.service" in asked
    assert "start -- lab-c.service" in asked
    assert "reload -- lab-b.service" in asked
    assert outcome.failures == ()
    assert {"lab-c.service", "lab-b.service"} <= set(outcome.units)


def test_nothing_moved_is_a_daemon_reload_and_no_more(played) -> None:
    asked = played(BEFORE).asked
    probe = Systemd()
    assert probe.before_files(image(BEFORE), NOW).actions == ()
    assert probe.after_files(image(BEFORE), NOW).actions == ()
    assert asked == ["daemon-reload"]
    assert probe.compare(image(BEFORE), image(BEFORE)) == []


def test_where_systemd_read_nothing_that_is_put_back_it_reads_nothing_again(played) -> None:
    asked = played(AFTER, BEFORE).asked
    Systemd().after_files(image(BEFORE), Circumstances(rereads=False))
    assert asked and "daemon-reload" not in asked


@pytest.mark.parametrize(
    "path",
    [
        b"/etc/fstab",
        b"/usr/lib/systemd/system/a.service",
        b"/usr/lib/systemd/system-generators/a",
        b"/lib/systemd/system/a.service.d/b.conf",
        b"/usr/lib/environment.d/a.conf",
        b"/root/.config/environment.d/a.conf",
        b"/srv/app/app.service",
        b"/srv/data.mount",
        b"/run/a",
        b"/usr/lib",
    ],
)
def test_what_systemd_may_have_read(path: bytes) -> None:
    assert is_read_by_systemd(path)


@pytest.mark.parametrize("path", [b"/usr/lib/a", b"/usr/bin/systemd-notify", b"/var/lib/dpkg/status", b"/srv/etc/a", b"/home/a/b"])
def test_what_systemd_does_not_read(path: bytes) -> None:
    assert not is_read_by_systemd(path)


def test_a_unit_that_does_not_come_up_is_a_failure(played) -> None:
    played(AFTER)
    outcome = Systemd().after_files(image(BEFORE), NOW)
    assert outcome.failures == ("Unit lab-c.service was active and is inactive: see `systemctl status lab-c.service`.",)


def test_at_boot_nobody_waits_for_a_job(played) -> None:
    asked = played(AFTER).asked
    circumstances = Circumstances(rebooted=True, at_boot=True)
    probe = Systemd()
    assert probe.before_files(image(BEFORE), circumstances).actions == ()
    probe.after_files(image(BEFORE), circumstances)
    assert asked == ["daemon-reload", "show --property=Id,Job default.target"]


def test_after_a_commit_only_what_it_had_moved(played) -> None:
    asked = played(AFTER).asked
    # The transaction itself moved nothing; all that is different was done later.
    circumstances = Circumstances(left=image(BEFORE))
    probe = Systemd()
    probe.before_files(image(BEFORE), circumstances)
    probe.after_files(image(BEFORE), circumstances)
    assert asked == ["daemon-reload"]


def test_compare_says_what_differs() -> None:
    found = Systemd().compare(image(BEFORE), image(AFTER))
    assert "Unit lab-c.service is inactive, and was active." in found
    assert "Unit lab-e.service is active, and was inactive." in found
    assert not any("lab-d" in sentence or "lab-t" in sentence for sentence in found)


def test_compare_after_a_commit_counts_only_what_the_transaction_moved() -> None:
    probe = Systemd()
    assert probe.compare(image(BEFORE), image(AFTER), Circumstances(left=image(BEFORE))) == []
    assert "Unit lab-c.service is inactive, and was active." in probe.compare(image(BEFORE), image(AFTER), Circumstances(left=image(AFTER)))


def test_a_systemd_that_does_not_answer_refuses_a_begin_but_not_an_undo(played) -> None:
    played(AFTER).code = 1
    with pytest.raises(ProbeFailed, match="no answer"):
        Systemd().capture()
    outcome = Systemd().before_files(image(BEFORE), NOW)
    assert "no answer" in outcome.failures[0]


def test_without_systemd_there_is_nothing_to_do(monkeypatch) -> None:
    monkeypatch.setattr(systemd.os.path, "isdir", lambda _path: False)
    captured = Systemd().capture()
    assert captured == {"managed": False, "units": {}}
    assert Systemd().before_files(captured, NOW) == Systemd().after_files(captured, NOW) == systemd.NOTHING


def test_after_a_planned_reboot_what_ran_runs_again_and_what_did_not_stops(played) -> None:
    """The boot is the transaction's doing; AFTER has no time at all of lab-c, which the boot did not start."""
    one = played(AFTER, AFTER, AFTER, BEFORE)
    probe, circumstances = Systemd(), Circumstances(windows=((1, 2),), rebooted=True, booted=1 << 40)
    probe.before_files(image(BEFORE), circumstances)
    outcome = probe.after_files(image(BEFORE), circumstances)
    assert "stop -- lab-e.service lab-run.service" in one.asked
    assert "start -- lab-c.service" in one.asked
    assert outcome.notes == outcome.failures == ()


def test_after_somebody_elses_reboot_units_are_left_and_that_is_said(played) -> None:
    one = played(AFTER)
    probe, circumstances = Systemd(), Circumstances(windows=((1, 2),), rebooted=True)
    assert probe.before_files(image(BEFORE), circumstances).actions == ()
    assert "has rebooted since" in probe.after_files(image(BEFORE), circumstances).notes[0]
    assert one.asked == ["daemon-reload"]


def failed_image() -> dict:
    before = image(BEFORE)
    before["units"]["lab-c.service"][1] = "failed"
    return before


def test_what_had_failed_is_made_failed_again_and_no_command_of_its_own_runs(played, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(systemctl.Systemctl, "transient", str(tmp_path / "transient"))
    one = played("\n\n".join(part for part in BEFORE.split("\n\n") if "Id=lab-c.service" not in part))
    one.down["lab-c.service"] = "LoadState=loaded\nOnFailure="
    texts = []

    def start(argv: list[str], *, timeout: float) -> Output:
        if "start" in argv:
            texts.append((tmp_path / "transient" / "lab-c.service.d" / "zzzz-acid-failed.conf").read_text())
        return one(argv, timeout=timeout)

    monkeypatch.setattr(systemctl, "run", start)
    Systemd().after_files(failed_image(), NOW)
    assert one.asked == [
        "daemon-reload",
        "daemon-reload",
        "start --job-mode=ignore-dependencies -- lab-c.service",
        "daemon-reload",
    ]
    assert "ExecStart=\n" in texts[0] and texts[0].endswith("ExecStart=/bin/false\n")
    assert not (tmp_path / "transient").exists()


def test_a_failure_that_is_not_one_again_is_a_difference() -> None:
    now = image(BEFORE)
    del now["units"]["lab-c.service"]
    assert Systemd().compare(failed_image(), now) == ["Unit lab-c.service is inactive, and was failed."]
