# SPDX-License-Identifier: GPL-3.0-or-later
"""The host after converge and after a failed play that was rolled back: all of the first, nothing of the second."""

from __future__ import annotations

from testinfra.host import Host


def test_the_service_of_the_committed_play_runs(host: Host) -> None:
    service = host.service("greeter.service")
    assert service.is_running
    assert service.is_enabled
    assert "infinity" in host.file("/etc/systemd/system/greeter.service").content_string


def test_the_greeting_is_the_committed_one(host: Host) -> None:
    greeting = host.file("/srv/greeter/greeting")
    assert greeting.content_string == "hello\n"
    assert (greeting.user, greeting.group, greeting.mode) == ("greeter", "greeter", 0o640)
    assert host.file("/srv/greeter").mode == 0o750


def test_nothing_of_the_failed_play_is_left(host: Host) -> None:
    assert not host.user("passerby").exists
    assert not host.file("/home/passerby").exists
    assert "greeter" not in host.file("/etc/services").content_string
    assert host.file("/usr/share/doc").is_directory


def test_both_transactions_are_in_the_journal(host: Host) -> None:
    listed = host.run("acidctl list")
    assert listed.rc == 0
    assert "COMMITTED" in listed.stdout
    assert "ABORTED" in listed.stdout
    assert "UNDO_FAILED" not in listed.stdout
