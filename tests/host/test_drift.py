# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Somebody else changes what a step has left (I5): it is never overwritten in silence, always named, and the rest goes back.

`tree` of rig.look() is what the host looks like, by a program that knows nothing of the engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from drifting import FILES, admin, begun, drift, forced, in_a_step, kept, only, stopped
from fixtures import any_rig, rig, rigs  # noqa: F401
from rig import Rig


def test_a_file_written_in_place(rig: Rig) -> None:
    before = begun(rig, "echo step >> one; echo step >> two; rm d/three")
    admin(rig, "echo admin >> one")
    summary = stopped(rig)
    assert drift(summary, "left") == ["one"]
    assert "one: drift: changed by somebody else" in summary["differs"][0]
    only(before, rig.look(), {"one"})
    assert rig.sh("cat one").out == "one\nstep\nadmin\n"
    blocked = rig.try_begin()
    assert blocked.error["class"] == "blocked"
    summary = forced(rig, before)
    assert kept(rig, summary, "one") == "one\nstep\nadmin\n"


def test_a_file_replaced_by_rename(rig: Rig) -> None:
    before = begun(rig, "sed -i s/one/step/ one; sed -i s/two/step/ two; sed -i 1d big")
    admin(rig, "sed -i s/step/admin/ one; sed -i s/9/admin/ big")
    summary = stopped(rig)
    assert drift(summary, "left") == ["big", "one"]
    only(before, rig.look(), {"one", "big", "hard"})
    assert rig.sh("cat one").out == "admin\n"
    forced(rig, before)


def test_a_file_that_the_step_made(rig: Rig) -> None:
    before = begun(rig, "echo new > new; echo other > other; ln -s x link; chmod 600 new")
    admin(rig, "echo admin >> new; ln -sfn y link")
    assert drift(stopped(rig), "left") == ["link", "new"]
    only(before, rig.look(), {"new", "link"})
    assert rig.sh("cat new; readlink link").out == "new\nadmin\ny\n"
    forced(rig, before)


def test_removed_replaced_and_put_there(rig: Rig) -> None:
    before = begun(rig, "sed -i s/one/step/ one; rm two; mv big large; echo > three")
    admin(rig, "rm one; echo admin > two; rm three; mkdir three; echo > three/f")
    summary = stopped(rig)
    assert drift(summary, "left") == ["one", "three", "two"]
    assert {one["path"].rpartition("/")[2]: one["what"] for one in summary["drift"]["left"]} == {
        "one": "removed",
        "two": "put there",
        "three": "replaced",
    }
    after = rig.look()
    assert after["two"]["size"] == 6
    assert "one" not in after
    forced(rig, before)


def test_metadata(rig: Rig) -> None:
    before = begun(rig, "chmod 600 one two d; chown 5 big; setfattr -n user.x -v 1 one")
    admin(rig, "chmod 640 one; chown 7 d")
    assert drift(stopped(rig), "left") == ["d", "one"]
    after = rig.look()
    assert (after["one"]["mode"], after["d"]["uid"]) == ("0o100640", 7)
    only(before, after, {"one", "d"})
    forced(rig, before)


def test_back_to_what_was_before_is_no_drift(rig: Rig) -> None:
    before = begun(rig, "chmod 600 one; echo step >> two; chmod 700 d")
    admin(rig, "chmod 644 one; chmod 755 d; printf 'two\\n' > two; touch -d @1 two; chmod 644 two")
    summary = rig.rollback(exact=False)
    assert drift(summary, "left") == ["two"]  # its time is not what it was
    rig.ctl("rollback", tx=rig.tx, on_drift="force")
    assert rig.changed(before) == []


def test_entries_of_others_in_directories_that_the_step_changed(any_rig: Rig) -> None:
    """They stay, and are no drift: nothing of theirs is in the way."""
    rig = any_rig
    before = begun(rig, "echo > d/new; rm one; chmod 700 d")
    admin(rig, "echo admin > d/admin; mkdir theirs; sleep 0.02")
    theirs = rig.look()["."]["mtime"]
    summary = rig.rollback()
    assert "drift" not in summary
    after = rig.look()
    only(before, after, {"d/admin", "theirs"})
    assert after["."]["mtime"] == theirs


def test_a_moved_file_that_somebody_changes(rig: Rig) -> None:
    """To take it back would put the change under another name."""
    before = begun(rig, "mv one moved; mv d e; echo > two")
    admin(rig, "echo admin >> moved; echo admin >> e/three")
    assert drift(stopped(rig), "left") == ["moved"]
    after = rig.look()
    assert "one" not in after
    assert "e" not in after
    assert rig.sh("cat moved d/three").out == "one\nadmin\nthree\nadmin\n"
    rig.sh("sed -i /admin/d d/three; touch -d @%d.%09d d/three" % divmod(int(str(before["d/three"]["mtime"])), 10**9))
    summary = rig.ctl("rollback", tx=rig.tx, on_drift="force").json
    assert summary["state"] == "ABORTED", summary
    assert kept(rig, summary, "moved") == "one\nadmin\n"
    assert "moved" not in rig.look()


def test_the_place_of_a_moved_file_is_taken(rig: Rig) -> None:
    """What stood there must not be lost for it."""
    before = begun(rig, "mv one moved; mv big large; rm -r d")
    admin(rig, "echo admin > one; mkdir d; echo admin > d/three")
    assert drift(stopped(rig), "left") == ["d", "one"]
    assert rig.sh("cat one moved d/three; ls large; true", good=False).out == "admin\none\nadmin\n"
    assert rig.look()["big"] == before["big"]
    forced(rig, before)


def test_a_directory_born_in_the_transaction(rig: Rig) -> None:
    """A file of the step's that somebody changed holds it back; what somebody only put there goes with it, and is listed."""
    before = begun(rig, "mkdir -p born/sub keep; echo > born/sub/f; echo > keep/f; echo > one", "echo > keep/later")
    admin(rig, "echo admin >> born/sub/f; echo admin > keep/admin; mkdir keep/data; echo > keep/data/x")
    summary = stopped(rig)
    assert drift(summary, "left") == ["born"]
    assert "born/sub/f" in summary["differs"][0]
    assert drift(summary, "gone") == ["keep/admin", "keep/data", "keep/data/x"]
    where = next(one["kept"] for one in summary["drift"]["gone"] if one["path"].endswith("keep/admin"))
    assert rig.run("cat", where).out == "admin\n"
    only(before, rig.look(), {"born", "born/sub", "born/sub/f"})
    forced(rig, before)


def test_a_service_that_fills_a_directory(rig: Rig) -> None:
    """Its data directory is the transaction's, and so is what it does there at any time; the list is shown."""
    work = "date >> data/log; rm -rf data/tmp; mkdir -p data/tmp/$RANDOM; touch data/$RANDOM data/tmp/x"
    unit = f"[Service]\\nUser=daemon\\nExecStart=/bin/bash -c 'while :; do {work}; done'\\n"
    rig.sh(FILES)
    before = rig.look()
    rig.begin(probes=["all"])
    rig.step("mkdir data; echo > data/log; echo > state; chown daemon data data/log state; chmod 777 .")
    script = (
        f'printf "{unit}WorkingDirectory=$PWD\\n" > /run/systemd/system/filler.service; systemctl daemon-reload; systemctl start filler'
    )
    rig.step(script)
    rig.sh("sleep 0.5; runuser -u daemon -- sh -c 'echo more >> state'")
    summary = rig.rollback()
    assert drift(summary, "kept_aside") == ["state"]
    assert any(path.startswith("data/") for path in drift(summary, "gone"))
    assert rig.changed(before) == []


def test_during_another_step(rig: Rig) -> None:
    """A daemon that the step asked, or an administrator: nobody can tell. It is undone, and a copy is kept."""
    before = begun(rig, "echo step > one; rm two")
    in_a_step(rig, "echo other >> one")
    summary = rig.rollback()
    assert kept(rig, summary, "one") == "step\nother\n"
    assert rig.changed(before) == []


def test_what_a_step_left_behind_is_its_own(rig: Rig) -> None:
    before = begun(rig, "exec 3>>one; (sleep 0.5; echo late >&3; sleep 100) & disown", "echo > two", "chmod 600 big")
    rig.sh("sleep 0.7; cat one | grep late")
    assert "drift" not in rig.rollback()
    assert rig.changed(before) == []


def test_steps_that_build_on_each_other(rig: Rig) -> None:
    """Links, moves, replacements and an undo to a savepoint in between are all the transaction's own."""
    before = begun(rig, "chmod 600 one; echo > new; ln new new2; mkdir e; mv d/three e/", "ln one one2; rm new; mv new2 n3; ln big b2")
    rig.savepoint("s")
    rig.step("rm -r e one; echo 5 > two; mv n3 n4; chmod 700 big; mkdir e; mv two e/")
    assert "drift" not in rig.rollback(to="s")
    rig.step("rm one2; echo x >> one; mv e f; rm hard")
    assert "drift" not in rig.rollback()
    assert rig.changed(before) == []


def test_an_undo_to_a_savepoint(rig: Rig) -> None:
    before = begun(rig, "echo step >> one")
    rig.savepoint("s")
    rig.step("echo more >> two; rm big")
    admin(rig, "echo admin >> two")
    summary = rig.rollback(to="s", exact=False)
    assert (summary["state"], drift(summary, "left")) == ("DOOMED", ["two"])
    assert drift(stopped(rig), "left") == ["two"]
    only(before, rig.look(), {"two"})
    assert rig.sh("cat two").out == "two\nmore\nadmin\n"
    forced(rig, before)


def test_force_and_names_of_every_kind(rig: Rig) -> None:
    names = "set -- \"$(printf 'x%.0s' {1..255})\" $'new\\nline' 'back\\slash' ' ' $'\\xff\\xfe'"
    before = begun(
        rig, f'{names}; for f; do echo step >> ./"$f"; done', prepare=f'{names}; for f; do echo > ./"$f"; done', on_drift="force"
    )
    admin(rig, f'{names}; for f; do echo admin >> ./"$f"; done')
    summary = rig.rollback()
    assert len(drift(summary, "kept_aside")) == 5
    assert rig.sh(f"grep -rlZ admin /var/lib/acid/store/{rig.tx}/aside | tr -dc '\\0' | wc -c; true").out == "5\n"
    only(before, rig.look(), set())


def test_after_a_commit(rig: Rig) -> None:
    before = begun(rig, "echo step >> one; echo step >> two")
    rig.commit()
    admin(rig, "echo admin >> one")
    assert drift(stopped(rig), "left") == ["one"]
    only(before, rig.look(), {"one"})
    shown = rig.run("acidctl", "show", rig.tx).out
    assert "+admin" in shown
    assert "/srv/rig/t/one" in shown
    forced(rig, before)


def test_resolve_keeps_what_is_there(rig: Rig) -> None:
    begun(rig, "echo step >> one")
    admin(rig, "echo admin >> one")
    stopped(rig)
    refused = rig.ctl("uninstall")  # the images would go too
    assert refused.error["class"] == "wrong-state" and rig.tx in refused.error["msg"], refused
    assert rig.ctl("resolve", rig.tx).json["state"] == "RESOLVED"
    assert rig.sh("cat one").out == "one\nstep\nadmin\n"
    rig.begin()
    rig.rollback()


def test_a_second_rollback_leaves_alone_what_the_first_gave_back(rig: Rig) -> None:
    before = begun(rig, "echo step >> one; echo step >> two; rm big; echo > new")
    admin(rig, "echo admin >> one")
    stopped(rig)
    admin(rig, "echo later >> two; rm big; echo later > new")
    summary = rig.ctl("rollback", tx=rig.tx, on_drift="force").json
    assert summary["state"] == "ABORTED"
    assert rig.sh("cat two new; ls big", good=False).out == "two\nlater\nlater\n"
    assert rig.look()["one"] == before["one"]


@pytest.mark.exact
@pytest.mark.parametrize(
    "test",
    [
        test_a_file_written_in_place,
        test_a_file_replaced_by_rename,
        test_a_file_that_the_step_made,
        test_metadata,
        test_entries_of_others_in_directories_that_the_step_changed,
        test_the_place_of_a_moved_file_is_taken,
        test_a_directory_born_in_the_transaction,
        test_steps_that_build_on_each_other,
    ],
    ids=lambda test: str(test.__name__),
)
def test_on_each_file_system(any_rig: Rig, test: Callable[[Rig], None]) -> None:
    test(any_rig)


def test_a_step_that_is_sealed_long_before_the_undo(rig: Rig) -> None:
    """A rehearsal looks at the last step before it rolls back."""
    before = begun(rig, "echo step > new; echo step >> one")
    rig.ctl("denied", tx=rig.tx, token=rig.token, seal=True)
    admin(rig, "echo admin >> new")
    assert drift(stopped(rig), "left") == ["new"]
    only(before, rig.look(), {"new"})
    forced(rig, before)
