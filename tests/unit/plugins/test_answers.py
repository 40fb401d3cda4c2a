# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of the host's answers: errors, reports, the recap, the ledger."""

from __future__ import annotations

import pytest
from ansible_collections.acid.host.plugins.plugin_utils import recap, reports
from ansible_collections.acid.host.plugins.plugin_utils.hostcommand import HostError, NotInstalled, Output, answer
from ansible_collections.acid.host.plugins.plugin_utils.ledger import BEGUN, ENDED, REFUSED, STEP, Ledger, OpenTransaction

SUMMARY = {
    "tx": "tx-1",
    "state": "ABORTED",
    "steps": [{}, {}],
    "paths": 9,
    "units": ["a.service"],
    "irreversible": ["module loaded"],
    "survivors": ["/usr/bin/left 1"],
    "differs": [],
    "seconds": 1.25,
}


def test_an_answer_may_have_noise_before_it():
    assert answer("begin", Output(0, 'Welcome!\nBECOME-SUCCESS-x\n{"tx": "1"}\n', "")) == {"tx": "1"}


def test_an_undo_that_failed_still_answers():
    assert answer("rollback", Output(25, '{"tx": "1", "state": "UNDO_FAILED"}', ""))["state"] == "UNDO_FAILED"


@pytest.mark.parametrize(
    ("output", "kind", "sentence"),
    [
        (Output(16, '{"error": {"class": "busy", "msg": "Held.", "hint": "Wait."}}', ""), "busy", "Held. Wait."),
        (Output(1, "", "Traceback\nboom"), "no-answer", "exit code 1 and no answer (boom)"),
        (Output(0, '{"half', ""), "no-answer", "no answer"),
        (Output(3, "{}", ""), "no-answer", "exit code 3"),
    ],
)
def test_failures_are_sentences(output, kind, sentence):
    with pytest.raises(HostError) as caught:
        answer("begin", output)
    assert caught.value.kind == kind
    assert sentence in str(caught.value)


@pytest.mark.parametrize("rc", [126, 127])
def test_no_engine_is_told_from_a_broken_one(rc):
    with pytest.raises(NotInstalled):
        answer("begin", Output(rc, "", "sh: 1: /usr/local/lib/acid/x/acidctl: not found"))


def test_a_report_says_all_that_the_host_says():
    report = reports.of_summary("h", "p", reports.ROLLED_BACK, SUMMARY, reason="a task failed", outside=["far"])
    text = "\n".join(line for line, _colour in recap.lines([report]))
    for part in (
        "h : rolled back ",
        "steps=2",
        "undone=9",
        "units=a.service",
        "1.2s",
        "because: a task failed",
        "not undone: far",
        "not undone: module loaded",
        "still running: /usr/bin/left 1",
    ):
        assert part in text


def test_an_undo_that_failed_is_never_called_rolled_back():
    differs = {**SUMMARY, "state": "UNDO_FAILED", "differs": [f"/etc/{n}" for n in range(7)]}
    report = reports.of_summary("h", "p", reports.ROLLED_BACK, differs, reason="", outside=[])
    assert report.outcome == reports.UNDO_FAILED
    text = "\n".join(line for line, _colour in recap.lines([report]))
    assert "UNDO FAILED" in text
    assert "differs: /etc/4" in text
    assert "differs: and 2 more, see 'acidctl show tx-1' on h" in text
    assert "/etc/5" not in text
    assert "what now: " in text


def test_a_commit_says_what_could_not_have_been_undone():
    report = reports.of_summary("h", "p", reports.COMMITTED, {**SUMMARY, "state": "COMMITTED"}, reason="", outside=[])
    text = "\n".join(line for line, _colour in recap.lines([report]))
    assert "could not have been undone: module loaded" in text
    assert "changed=9" in text


def test_the_worst_outcome_stands_for_the_host():
    def report(host, outcome):
        return reports.Report(host=host, play="p", outcome=outcome)

    ended = [
        report("a", reports.COMMITTED),
        report("a", reports.ROLLED_BACK),
        report("b", reports.UNDO_FAILED),
        report("b", reports.COMMITTED),
    ]
    assert reports.custom_stats(ended)["hosts"] == {"a": "rolled_back", "b": "undo_failed"}


def test_every_outcome_has_words_and_a_colour():
    assert set(reports.SEVERITY) == set(recap.WORDS) == set(recap.COLOURS)


@pytest.fixture
def ledger(sandbox):
    return Ledger(sandbox / "ledger")


def transaction(host="web/1", tx="tx-1"):
    return OpenTransaction(host, tx, 1, "e", "", "play", "root", True, "ssh", "h", 300, "warn")


def test_the_ledger_knows_what_is_open(ledger):
    assert ledger.open_transaction("web/1") is None
    ledger.begun(transaction())
    assert ledger.open_transaction("web/1") == transaction()
    ledger.append("web/1", ENDED, tx="tx-other", outcome="committed", summary={})
    assert ledger.open_transaction("web/1") == transaction()
    ledger.append("web/1", ENDED, tx="tx-1", outcome="committed", summary={})
    assert ledger.open_transaction("web/1") is None
    assert ledger.open_transaction("web/2") is None


def test_steps_are_those_of_the_newest_transaction_once_each(ledger):
    ledger.begun(transaction())
    ledger.append("web/1", STEP, id="old", task="", by="web/1")
    ledger.begun(transaction(tx="tx-2"))
    for step in ("a", "b", "a"):
        ledger.append("web/1", STEP, id=step, task="", by="web/1")
    assert ledger.steps("web/1") == ["a", "b"]
    ledger.append("web/1", REFUSED, kind="busy", msg="x")
    assert [event.kind for event in ledger.since_begin("web/1")] == [REFUSED]
    assert [event.kind for event in ledger.events("web/1")].count(BEGUN) == 2
