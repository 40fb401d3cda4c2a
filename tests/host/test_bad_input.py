# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture's name is a test's argument)
"""Bad input on a real host: one sentence that says what, where and what to do; and nothing is lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import rig, rigs  # noqa: F401
from rig import Done, Rig

STATE = "/var/lib/acid"


def refused(done: Done, kind: str, *words: str) -> None:
    """The error is of this class, its message holds the words, and there is a hint."""
    assert done.code not in (0, 10), done
    error = done.error
    assert error["class"] == kind, error
    assert [word for word in words if word not in f"{error['msg']} {error['hint']}"] == [], error
    assert error["hint"], error
    assert "\n" not in error["msg"] + error["hint"], error
    assert "Traceback" not in done.err, done.err


@pytest.fixture
def opened(rig: Rig) -> Iterator[Rig]:
    """A host in a transaction that has changed something; at the end it must still be able to undo it."""
    rig.sh("echo one > one")
    before = rig.look()
    rig.begin(name="first play", owner="ada@laptop")
    rig.step("echo two > one; echo x > two")
    yield rig
    rig.rollback()
    assert rig.changed(before) == []


def test_a_second_begin_says_who_holds_the_host_and_since_when(opened: Rig) -> None:
    refused(opened.try_begin(name="second"), "busy", opened.tx, "first play", "ada@laptop", "since 2", "acidctl rollback")


def test_commit_without_begin(rig: Rig) -> None:
    for verb in ("commit", "savepoint", "doom"):
        refused(rig.ctl(verb, token=1, name="x", steps=[]), "no-transaction")


def test_another_transactions_id(opened: Rig) -> None:
    refused(opened.ctl("commit", tx="20200101-00000000", token=opened.token, steps=[]), "wrong-transaction", opened.tx, "20200101-00000000")
    done = opened.run(*[word.replace(opened.tx, "20200101-00000000") for word in opened.argv(["touch", f"{opened.root}/three"])])
    assert (done.code, done.out) == (97, "")
    assert done.err.startswith("acid: wrong-transaction: ")
    assert done.err.count("\n") == 1
    assert opened.sh("ls").out == "one\ntwo\n"


@pytest.mark.parametrize("verb", ["commit", "savepoint", "rollback", "doom"])
def test_a_stale_token(opened: Rig, verb: str) -> None:
    refused(opened.ctl(verb, tx=opened.tx, token=opened.token - 1, name="x", steps=[]), "stale-token", str(opened.token - 1), opened.tx)


def test_a_step_with_a_stale_token(opened: Rig) -> None:
    opened.token -= 1
    done = opened.run(*opened.argv(["touch", f"{opened.root}/three"]))
    opened.token += 1
    assert (done.code, done.err.split(":")[:2]) == (97, ["acid", " stale-token"])


def test_a_step_without_a_transaction(rig: Rig) -> None:
    rig.tx, rig.token = "20200101-00000000", 1
    done = rig.run(*rig.argv(["touch", f"{rig.root}/x"]))
    assert done.code == 97
    assert done.err.startswith("acid: ")
    assert done.err.count("\n") == 1
    assert rig.sh("ls").out == ""


def test_a_savepoint_that_is_not_there(opened: Rig) -> None:
    opened.savepoint("known")
    refused(opened.ctl("rollback", tx=opened.tx, token=opened.token, to="unknown"), "usage", "unknown", "known")


def test_an_unknown_transaction_is_not_rolled_back(rig: Rig) -> None:
    for verb in ("rollback", "show", "diff"):
        done = rig.ctl(verb, "20200101-00000000")
        assert done.error["class"] == "wrong-transaction", (verb, done)


def test_a_request_that_is_no_request(rig: Rig) -> None:
    for words in (["--request", "%%%"], ["--request", "W10="], ["--no-such-option"]):
        done = rig.run("acidctl", "begin", "--json", *words)
        assert done.code in (2, 11), done
        assert "Traceback" not in done.err


def test_an_engine_that_was_tampered_with(rig: Rig) -> None:
    target = "$(readlink -f /usr/local/lib/acid/current)/engine/undo.py"
    rig.sh(f"cp -p {target} /root/undo.py; echo '# changed' >> {target}")
    try:
        refused(rig.try_begin(), "engine-tampered", "engine/undo.py", "/usr/local/lib/acid/")
    finally:
        rig.sh(f"cp -p /root/undo.py {target}; rm /root/undo.py")
    rig.begin()
    rig.rollback()


def test_engine_files_that_others_may_write(rig: Rig) -> None:
    target = "$(readlink -f /usr/local/lib/acid/current)/engine/store.py"
    rig.sh(f"chmod 666 {target}")
    try:
        refused(rig.try_begin(), "engine-tampered", "engine/store.py")
    finally:
        rig.sh(f"chmod 644 {target}")


def test_not_root(rig: Rig) -> None:
    for verb in ("begin", "rollback", "list", "health"):
        done = rig.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "acidctl", verb, "--json")
        refused(done, "not-root", "root", "sudo")
    rig.begin()
    done = rig.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *rig.argv(["true"]))
    assert (done.code, done.err.split(":")[0]) == (97, "acid"), done
    rig.rollback()


def test_a_python_without_what_the_engine_needs(rig: Rig) -> None:
    """The probe that the controller runs before it sends anything."""
    from ansible_collections.acid.host.plugins.plugin_utils import delivery

    missing = "import sys; sys.modules['sqlite3'] = None; sys.modules['ctypes'] = None; sys.argv = ['-c', '/usr/bin/python3']; "
    done = rig.run("python3", "-c", missing + "exec(sys.stdin.read())", stdin=delivery.PROBE)
    assert (done.code, done.out) == (1, "")
    assert done.err == "acid-python: /usr/bin/python3: has no module sqlite3 and no module ctypes\n"
    old = "import sys; sys.version_info = (3, 6, 8); sys.argv = ['-c', '/usr/bin/python3']; exec(sys.stdin.read())"
    assert "is Python 3.6, and 3.9 is the oldest" in rig.run("python3", "-c", old, stdin=delivery.PROBE).err


# -- the state directory -------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(rig: Rig) -> Iterator[Rig]:
    """The host's /var/lib/acid moved aside, for a test to mount something there."""
    rig.sh(f"systemctl stop acid-agent; mkdir -p /root/acid-aside {STATE}; mount --bind {STATE} /root/acid-aside")
    yield rig
    rig.root = ""
    rig.sh(
        f"systemctl stop acid-agent; for n in 1 2 3; do umount -l {STATE} 2>/dev/null || break; done; "
        f"umount /root/acid-aside; rmdir /root/acid-aside"
    )


def test_a_full_state_directory(elsewhere: Rig) -> None:
    rig = elsewhere
    rig.sh(f"mount -t tmpfs -o size=40m none {STATE}; head -c 30m /dev/zero > {STATE}/ballast")
    refused(rig.try_begin(), "store-full", STATE, "MiB free", "acidctl gc")
    rig.sh(f"head -c 20m /dev/zero >> {STATE}/ballast || true")
    refused(rig.try_begin(), "store-full", STATE)


def test_a_read_only_state_directory(elsewhere: Rig) -> None:
    elsewhere.sh(f"mount -t tmpfs none {STATE}; mount -o remount,ro {STATE}")
    refused(elsewhere.try_begin(), "journal-unwritable", STATE, "Read-only", "Mount it read-write")


def test_a_state_directory_that_fills_up_during_a_step(elsewhere: Rig) -> None:
    """Calls fail with EIO from there on, nothing unlogged happens, and the rest is undone."""
    rig = elsewhere
    rig.sh(f"mount -t tmpfs -o size=60m none {STATE}; mkdir d; for n in $(seq 200); do seq 300 > d/$n; done")
    before = rig.look()
    rig.begin()
    rig.step("rm d/1 d/2; echo new > d/3")
    rig.sh(f"head -c 100m /dev/zero > {STATE}/ballast || true")
    done = rig.step("rm -f d/* || true; cat d/200 > /dev/null && echo still there", good=None)
    if done.code != 97:
        assert "Input/output error" in done.err, done
        assert "still there" in done.out, done
    rig.sh(f"rm {STATE}/ballast")
    rig.rollback()
    assert rig.changed(before) == []


def test_show_says_where_images_hold_space(rig: Rig) -> None:
    """Removing a kept file frees none (TRACE.md 24)."""
    rig.sh("head -c 3m /dev/urandom > big; sync")
    rig.begin()
    rig.step("rm big")
    (held,) = rig.ctl("show", rig.tx).json["held"]
    assert held["bytes"] >= 3 << 20
    assert f"Its images hold 3.0 MiB on {held['path']}: free again when" in rig.run("acidctl", "show", rig.tx).out
    rig.rollback()
    assert rig.ctl("show", rig.tx).json["held"] == []


def test_a_begin_without_inodes_says_so(elsewhere: Rig) -> None:
    elsewhere.sh(f"mount -t tmpfs -o size=60m,nr_inodes=40 none {STATE}")
    refused(elsewhere.try_begin(), "store-full", STATE, "inodes", "acidctl gc")


# -- another version's engine ------------------------------------------------------------------------------------


def test_a_format_of_another_engine(rig: Rig) -> None:
    """This one refuses by name and touches nothing; the one that knows the format undoes it, though the agent is this one's."""
    rig.sh("echo one > one; seq 4000 > big")
    before = rig.look()
    rig.begin()
    rig.step("echo two > one; rm big")
    rig.commit()
    left = rig.look()
    lib, other = "/usr/local/lib/acid", "/usr/local/lib/acid/feedfeedfeedfeed"
    rig.sh(f"mv {STATE}/tx/{rig.tx}/format-2 {STATE}/tx/{rig.tx}/format-9")
    try:
        for verb in ("rollback", "diff", "verify"):
            refused(rig.ctl(verb, rig.tx), "format-unknown", "format 9", "Nothing was touched")
        refused(rig.ctl("rollback", rig.tx), "format-unknown", rig.tx, "engine", "this engine can undo 1", "acidctl")
        assert rig.changed(left) == []
        assert rig.state_now() == "COMMITTED"
        assert rig.ctl("gc", "--days", "0").code == 0  # it is not this engine's to drop
        assert rig.sh(f"ls {STATE}/tx/{rig.tx}/log").out
        rig.sh(
            f"cp -a $(readlink -f {lib}/current) {other}; cd {other}; rm engine/__pycache__/formats.*; "
            f"sed -i 's/frozenset({{1, 2}})/frozenset({{1, 2, 9}})/' engine/formats.py; sed -i \"s|'{lib}/[0-9a-f]*'|'{other}'|\" acidctl"
        )
        done = rig.run(f"{other}/acidctl", "rollback", "--json", rig.tx)
        assert (done.code, done.json["state"], done.json["differs"]) == (0, "ABORTED", []), done
        assert rig.changed(before) == []
    finally:
        rig.sh(f"rm -rf {other}; mv {STATE}/tx/{rig.tx}/format-9 {STATE}/tx/{rig.tx}/format-2")


# -- damage --------------------------------------------------------------------------------------------------


def damaged(rig: Rig, script: str, *words: str) -> None:
    """A committed transaction whose images were spoilt by `script` in its directory is refused, and no path is touched."""
    rig.sh("echo one > one; seq 4000 > big; mkdir d; echo x > d/x")
    rig.begin()
    rig.step("echo two > one; rm big; rm -r d; ln -s one link")
    rig.commit()
    left = rig.look()
    rig.sh(f"cp -a {STATE}/tx/{rig.tx} /root/aside; cd {STATE}/tx/{rig.tx} && {script}")
    try:
        for _again in range(2):
            refused(rig.ctl("rollback", tx=rig.tx), "journal-damaged", f"{STATE}/tx/{rig.tx}", *words)
            assert rig.changed(left) == []
        refused(rig.ctl("verify", rig.tx), "journal-damaged", f"{STATE}/tx/{rig.tx}")
        assert rig.try_begin().error["class"] == "blocked"
    finally:
        rig.sh(f"rm -rf {STATE}/tx/{rig.tx}; mv /root/aside {STATE}/tx/{rig.tx}")
    rig.rollback()
    assert rig.look()["big"]["size"] == 18893
    assert rig.sh("cat one; ls").out == "one\nbig\nd\none\n"


FLIP = (
    'python3 -c \'import os; n = os.stat("log").st_size // 2; f = open("log", "r+b"); f.seek(n); b = f.read(1); '
    "f.seek(n); f.write(bytes([b[0] ^ 1]))'"
)


def test_a_flipped_bit_in_the_log(rig: Rig) -> None:
    damaged(rig, FLIP, "record", "Nothing was touched")


def test_a_log_that_was_cut(rig: Rig) -> None:
    damaged(rig, "truncate -s -200 log", "HEAD")


def test_a_missing_head(rig: Rig) -> None:
    damaged(rig, "rm head", "HEAD is missing")


def test_a_missing_log(rig: Rig) -> None:
    damaged(rig, "rm log", "log")


def test_a_damaged_journal(rig: Rig) -> None:
    """Begin refuses before anything else happens; what is said is a sentence, not SQLite's."""
    rig.begin()
    rig.rollback()
    rig.sh(f"systemctl stop acid-agent; mkdir /root/aside; cp -a {STATE}/journal* /root/aside/")
    try:
        for damage in ("f.write(b'x' * 5000)", "f.truncate(3000)", "f.seek(-5000, 2); f.write(b'x' * 4000)"):
            rig.sh(f"python3 -c \"f = open('{STATE}/journal.db', 'r+b'); {damage}\"; rm -f {STATE}/journal.db-*")
            refused(rig.try_begin(), "journal-damaged", f"{STATE}/journal.db")
            rig.sh(f"systemctl stop acid-agent; rm -f {STATE}/journal.*; cp -a /root/aside/journal* {STATE}/")
    finally:
        rig.sh(
            f"systemctl stop acid-agent; rm -f {STATE}/journal.*; mv /root/aside/journal* {STATE}/; rmdir /root/aside; "
            f"systemctl reset-failed acid-agent",
            good=False,
        )
    assert json.loads(rig.ctl("list").out)["transactions"]
