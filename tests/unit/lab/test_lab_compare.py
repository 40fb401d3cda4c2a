# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from acidlab.oracle.compare import compare, outside
from acidlab.oracle.model import Fields, Key, dump, load

FILE: Fields = {"type": "file", "mode": "0644", "mtime": 1, "xattrs": {"user.a": "YQ=="}, "links": ["/a", "/b"]}
ODD = Key("path", "/odd\udcff\n\u00e9")


def test_a_state_survives_its_file() -> None:
    state = {ODD: FILE, Key("dpkg", "cron:amd64"): {"version": "1"}}
    lines = list(dump(state))
    assert load(lines) == state
    assert all(line.isascii() and "\n" not in line for line in lines)


def test_equal_states_do_not_differ() -> None:
    assert compare({ODD: FILE}, {ODD: dict(FILE)}) == []


def test_each_kind_of_change() -> None:
    before: dict[Key, Fields] = {Key("path", "/gone"): FILE, Key("path", "/same"): FILE, Key("path", "/other"): FILE}
    changed: Fields = {**FILE, "mode": "0600", "flags": "i"}
    after: dict[Key, Fields] = {Key("path", "/new"): FILE, Key("path", "/same"): FILE, Key("path", "/other"): changed}
    found = compare(before, after)
    assert [(item.key.name, item.change) for item in found] == [("/gone", "removed"), ("/new", "added"), ("/other", "changed")]
    assert found[2].fields == {"flags": (None, "i"), "mode": ("0644", "0600")}


def test_ignored_fields_do_not_count_but_absence_does() -> None:
    before, after = {ODD: FILE}, {ODD: {**FILE, "mtime": 2}}
    assert compare(before, after, ignore=["mtime"]) == []
    assert [item.change for item in compare(before, {}, ignore=list(FILE))] == ["removed"]


def test_across_a_boot_only_mtimes_of_what_a_boot_makes() -> None:
    before = {Key("path", path): FILE for path in ("/dev/null", "/etc/passwd")}
    after = {key: {**FILE, "mtime": 2} for key in before}
    assert [item.key.name for item in compare(before, after, across_boot=True)] == ["/etc/passwd"]
    worse = {**before, Key("path", "/dev/null"): {**FILE, "mtime": 2, "mode": "0600"}}
    assert [list(item.fields) for item in compare(before, worse, across_boot=True)] == [["mode"]]


def test_outside_leaves_out_a_path_and_what_is_below_it() -> None:
    state = {Key("path", path): FILE for path in ("/srv", "/srv/a", "/srvx")} | {Key("group", "/srv"): FILE}
    assert [item.key for item in outside(compare({}, state), ["/srv"])] == [Key("group", "/srv"), Key("path", "/srvx")]


def test_a_difference_is_one_readable_line() -> None:
    text = str(compare({ODD: FILE}, {ODD: {**FILE, "mode": "0600"}})[0])
    assert text == r"changed path /odd\\xff\n\xe9: mode '0644' -> '0600'"
