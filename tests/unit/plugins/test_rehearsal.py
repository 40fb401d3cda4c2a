# SPDX-License-Identifier: GPL-3.0-or-later
"""A rehearsal as text and as a page: nothing of a host's is obeyed, nothing is fetched, equal hosts are shown once."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import ClassVar

from ansible_collections.acid.host.plugins.plugin_utils import rehearsal, rehearsal_page, rehearsal_text, reports
from ansible_collections.acid.host.plugins.plugin_utils.rehearsal import Rehearsal, printable

EVIL = "<script>alert(1)</script>\x1b[31m\u202e\n'\"&\udcff"
SIDE = {"type": "file", "mode": "0644", "owner": "0:0", "mtime": "2026-01-01 00:00:00.000000000 UTC", "size": 3}


def change(path="/etc/x", kind="changed", **more):
    diff = ["--- a", "+++ b", "@@ -1 +1 @@", "-old", f"+new {EVIL}", "+++ not a header", "\\ No newline at end of file"]
    both = {"before": SIDE, "after": {**SIDE, "size": 4, "mtime": more.pop("mtime", "2026-01-02 00:00:00.000000000 UTC")}}
    return {"path": path, "kind": kind, "from": None, "differs": ["size", "mtime", "content"], "diff": diff, "hidden": None, **both, **more}


def step(n=1, task="Task", changes=(), **more):
    known = {"n": n, "task": task, "module": "ansible.builtin.copy", "position": "site.yml:1", "state": "SEALED", "no_log": False}
    return {**known, "irreversible": [], "changes": list(changes), "more": 0, "undone": [], **more}


def told(host="h1", steps=(), outcome=reports.REHEARSED, host_changes=(), **more):
    report = reports.Report(host=host, play="Play", outcome=outcome, tx=f"tx-{host}", **more)
    return Rehearsal(report, tuple(map(rehearsal._step, steps)), tuple(host_changes))


class Elements(HTMLParser):
    OWN: ClassVar = {"html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "label", "input", "p", "section"}
    INSIDE: ClassVar = {"div", "span", "details", "summary", "pre", "table", "tr", "th", "td", "b", "i", "ul", "li", "br", "footer"}

    def __init__(self):
        super().__init__()
        self.seen, self.attributes, self.text = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def page(*all_of_them):
    elements = Elements()
    text = rehearsal_page.page(list(all_of_them), playbook=f"dir/{EVIL}.yml", now=0)
    elements.feed(text)
    return text, elements


def test_nothing_that_a_host_says_is_obeyed():
    evil = step(task=EVIL, changes=[change(path=f"/etc/{EVIL}", hidden=EVIL), change(kind="moved", **{"from": EVIL})], irreversible=[EVIL])
    one = told(host=EVIL, steps=[evil], host_changes=[EVIL], reason=EVIL)
    text, elements = page(one)
    assert elements.seen <= Elements.OWN | Elements.INSIDE
    assert not [pair for pair in elements.attributes if pair[0].startswith("on") or pair[0] in ("src", "href")]
    assert any(value.startswith("default-src 'none'") for name, value in elements.attributes if name == "content")
    assert "<script" not in text and "url(" not in text and "@import" not in text
    for line, _colour in rehearsal_text.lines([one], page=""):
        if "/etc/" in line or "new " in line:
            assert "\x1b" not in line and "\u202e" not in line


def test_diffs_by_sign_and_without_their_headers():
    one = told(steps=[step(changes=[change()])])
    shown = [line.strip() for line, _colour in rehearsal_text.lines([one], page="/tmp/page.html")]
    assert "-old" in shown and "+++ not a header" in shown and "--- a" not in shown
    assert one.added_removed == (2, 1)
    assert "All of it, as a page: /tmp/page.html" in shown


def test_long_lists_are_cut_in_the_terminal_and_whole_on_the_page():
    long = change(diff=["--- a", "+++ b", f"+{'x' * 999}", *(f"+{n}" for n in range(1, 500))])
    one = told(steps=[step(changes=[long] + [change(path=f"/etc/{n}", diff=None) for n in range(100)], more=7)])
    text = "\n".join(line for line, _colour in rehearsal_text.lines([one], page=""))
    assert "and 440 more lines" in text and "and 88 more paths" in text and "+300" not in text and "x" * 201 not in text
    whole, _elements = page(one)
    assert "+499" in whole and "x" * 999 in whole and "/etc/99" in whole and "and 7 more paths" in whole


def test_hosts_with_the_same_changes_are_shown_once_whatever_their_times():
    alike = [told(host, [step(changes=[change(mtime=f"at {host}")])]) for host in ("h1", "h2")]
    other = told("h3", [step(changes=[change(path="/etc/y")])])
    assert [hosts for hosts, _one in rehearsal_text.grouped([*alike, other])] == [["h1", "h2"], ["h3"]]


def test_a_host_of_which_nothing_is_known_and_one_that_is_not_as_before():
    text, _elements = page(Rehearsal(told().report, problem="no answer"), told("h2", outcome=reports.UNDO_FAILED, differs=["/etc/x"]))
    assert "no answer" in text and "UNDO FAILED" in text and "differs: /etc/x" in text


def test_printable_keeps_what_people_read():
    assert printable("äß 日本\t", keep="\t") == "äß 日本\t"
    assert printable("a\nb\x00\udcff") == "a\\nb\\x00\\udcff"
