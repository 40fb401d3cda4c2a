# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that daemons write: filetree.py, contents.py, manifest.py and etc.py."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import time
from dataclasses import replace as replace_fields
from pathlib import Path

import pytest
from engine.probes import base, etc, manifest
from engine.probes.base import LATE_NS, Circumstances
from engine.probes.etc import Etc
from engine.probes.filetree import Entry, compare_entries, put_back, read, read_tree

NOW = Circumstances()


@pytest.fixture
def place(sandbox: Path) -> Path:
    """A little /etc: the tree systemd/, the file hostname, the link localtime, and an old time on everything."""
    top = sandbox / "etc"
    wants = top / "systemd" / "system" / "multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "cron.service").symlink_to("/lib/systemd/system/cron.service")
    (top / "systemd" / "system.conf").write_text("[Manager]\n")
    (top / "hostname").write_text("h1\n")
    (top / "localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    (top / "motd").write_text("not ours\n")
    os.mkfifo(top / "systemd" / "initctl", 0o620)
    for number, path in enumerate(sorted([top, *top.rglob("*")], reverse=True)):
        os.utime(path, ns=(10**18 + number, 10**18 + number), follow_symlinks=False)
    return top


@pytest.fixture
def probe(place: Path, sandbox: Path) -> Etc:
    known = ("systemd", "hostname", "localtime", "machine-info")
    return Etc(trees=(os.fsencode(place),), known=tuple(os.fsencode(place / name) for name in known), state=str(sandbox / "state"))


def image(probe: Etc) -> dict:
    return json.loads(json.dumps(probe.capture()))


def look(place: Path) -> dict[str, Entry]:
    """All that is restored; ctime cannot be."""
    tree = read_tree(os.fsencode(place))
    gone = {"ctime_ns": 0, "inode": (0, 0), "settled": False}
    return {os.fsdecode(path): replace_fields(entry, **gone) for path, entry in tree.items()}


def replace(path: Path, text: str) -> None:
    """As daemons do: a new file, renamed over."""
    fresh = path.with_name(".new")
    fresh.write_text(text)
    fresh.rename(path)


def enable(place: Path, name: str, target: str = "multi-user.target.wants") -> None:
    folder = place / "systemd" / "system" / target
    folder.mkdir(exist_ok=True)
    (folder / name).symlink_to(f"/lib/systemd/system/{name}")


def test_a_tree_that_an_older_engine_did_not_look_at_is_left(place: Path, sandbox: Path) -> None:
    (place / "old" / "etc").mkdir(parents=True)
    (place / "lib" / "alternatives").mkdir(parents=True)
    (place / "lib" / "alternatives" / "editor").write_text("auto")
    trees = tuple(os.fsencode(place / name) for name in ("old/etc", "lib/alternatives", "lib/none"))
    older, newer = (Etc(trees=several, known=(), state=str(sandbox / "state")) for several in (trees[:1], trees))
    before = image(older)
    assert newer.after_files(before, base.UNKNOWN) == base.NOTHING
    assert newer.compare(before, image(newer)) == []
    assert (place / "lib" / "alternatives" / "editor").read_text() == "auto"
    before = image(newer)
    (place / "lib" / "alternatives" / "pager").write_text("auto")
    (place / "lib" / "none").mkdir()
    newer.after_files(before, base.UNKNOWN)
    assert newer.compare(before, image(newer)) == []
    assert sorted(path.name for path in (place / "lib").rglob("*")) == ["alternatives", "editor"]


def test_everything_a_daemon_does_is_undone_exactly(probe: Etc, place: Path) -> None:
    was, before = look(place), image(probe)
    assert probe.compare(before, image(probe)) == []
    replace(place / "hostname", "other\n")
    (place / "localtime").unlink()
    (place / "localtime").symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    (place / "machine-info").write_text("PRETTY_HOSTNAME=x\n")
    (place / "systemd/system/multi-user.target.wants/cron.service").unlink()
    (place / "systemd/system/multi-user.target.wants").rmdir()
    enable(place, "net.service", "network-online.target.wants")
    (place / "systemd/system/cron.service").symlink_to("/dev/null")
    (place / "systemd/initctl").unlink()
    (place / "systemd/system.conf").chmod(0o600)
    os.setxattr(place / "systemd/system.conf", "user.tag", b"x")
    assert len(probe.compare(before, image(probe))) >= 8
    outcome = probe.after_files(before, NOW)
    assert outcome.failures == ()
    assert look(place) == was
    assert probe.compare(before, image(probe)) == []
    assert probe.after_files(before, NOW).actions == ()


def test_a_new_entry_is_told_once(probe: Etc, place: Path) -> None:
    before = image(probe)
    enable(place, "new.service")
    assert probe.compare(before, image(probe)) == [f"'{place}/systemd/system/multi-user.target.wants/new.service' is there, and was not."]


def test_a_changed_type_is_changed_back(probe: Etc, place: Path) -> None:
    was, before = look(place), image(probe)
    (place / "systemd/system.conf").unlink()
    (place / "systemd/system.conf").mkdir()
    (place / "systemd/system/multi-user.target.wants/cron.service").unlink()
    (place / "systemd/system/multi-user.target.wants").rmdir()
    (place / "systemd/system/multi-user.target.wants").symlink_to("/dev/null")
    assert probe.after_files(before, NOW).failures == ()
    assert look(place) == was


def test_owner_capabilities_and_acl_come_back(place: Path, sandbox: Path) -> None:
    path = sandbox / "file"
    path.write_text("x")
    os.chown(path, 1234, 4321)
    path.chmod(0o4750)
    subprocess.run(["setfacl", "-m", "u:99:rw", path], check=True)
    subprocess.run(["setcap", "cap_net_raw+ep", path], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:7:rwx", sandbox], check=True)
    was = read(os.fsencode(path))
    assert {name for name, _value in was.xattrs} >= {"security.capability", "system.posix_acl_access"}
    path.unlink()
    put_back(os.fsencode(path), was, b"x")
    assert compare_entries(was, read(os.fsencode(path))) == ""
    plain = replace_fields(was, xattrs=(), mode=stat.S_IFREG | 0o640)
    put_back(os.fsencode(path), plain, b"x")
    assert compare_entries(plain, read(os.fsencode(path))) == "", "the directory's default ACL stays away from what had none"


def test_names_that_are_not_text(probe: Etc, place: Path) -> None:
    odd = os.fsencode(place / "systemd") + b"/\xff\n"
    os.symlink(b"/\xfe", odd)
    os.utime(place / "systemd", ns=(0, 10**18))
    was, before = look(place), image(probe)
    os.unlink(odd)
    assert probe.after_files(before, NOW).failures == ()
    assert look(place) == was


def test_what_happened_outside_of_every_step_is_left_and_told(probe: Etc, place: Path) -> None:
    before = image(probe)
    start = time.time_ns()
    enable(place, "ours.service")
    time.sleep(0.02)
    end = time.time_ns()
    time.sleep(0.2)
    enable(place, "theirs.service")
    circumstances = Circumstances(windows=((start, end - LATE_NS + 10**8),))
    outcome = probe.after_files(before, circumstances)
    names = os.listdir(place / "systemd/system/multi-user.target.wants")
    assert sorted(names) == ["cron.service", "theirs.service"]
    assert "theirs.service" in outcome.notes[0]
    assert probe.compare(before, image(probe), circumstances) == []
    # The directory now has somebody else's entry and so keeps its own time.
    assert os.stat(place / "systemd/system/multi-user.target.wants").st_mtime_ns > 10**18 + 100


def test_after_a_commit_only_what_it_had_left(probe: Etc, place: Path) -> None:
    before = image(probe)
    enable(place, "ours.service")
    replace(place / "hostname", "ours\n")
    left = image(probe)
    enable(place, "later.service")
    replace(place / "hostname", "later\n")
    outcome = probe.after_files(before, Circumstances(left=left))
    wants = place / "systemd/system/multi-user.target.wants"
    assert sorted(os.listdir(wants)) == ["cron.service", "later.service"]
    assert (place / "hostname").read_text() == "later\n"
    assert len(outcome.notes) == 2


def test_after_a_commit_what_a_daemon_wrote_before_a_step_did(probe: Etc, place: Path) -> None:
    """The undo of the files puts the daemon's text back, which is neither as before nor as the commit left it."""
    before = image(probe)
    replace(place / "machine-info", "the daemon's\n")
    replace(place / "machine-info", "the step's\n")
    left = image(probe)
    since = time.time_ns() - 20_000_000
    time.sleep(0.02)
    replace(place / "machine-info", "the daemon's\n")
    probe.after_files(before, Circumstances(left=left, since=since))
    assert not (place / "machine-info").exists()


def test_a_directory_with_somebody_elses_file_stays(probe: Etc, place: Path) -> None:
    before = image(probe)
    start = time.time_ns()
    enable(place, "ours.service", "foo.target.wants")
    end = time.time_ns()
    time.sleep(0.2)
    (place / "systemd/system/foo.target.wants/theirs.service").symlink_to("/x")
    outcome = probe.after_files(before, Circumstances(windows=((start, end - LATE_NS + 10**8),)))
    assert os.listdir(place / "systemd/system/foo.target.wants") == ["theirs.service"]
    assert outcome.failures == ()
    assert len(outcome.notes) == 2


def test_the_directory_around_keeps_its_time_when_others_added_to_it(probe: Etc, place: Path) -> None:
    before = image(probe)
    start = time.time_ns()
    replace(place / "hostname", "other\n")
    end = time.time_ns()
    time.sleep(0.2)
    (place / "new.conf").write_text("theirs")
    probe.after_files(before, Circumstances(windows=((start, end - LATE_NS + 10**8),)))
    assert (place / "new.conf").read_text() == "theirs"
    assert (place / "hostname").read_text() == "h1\n"
    assert os.stat(place).st_mtime_ns > 2 * 10**18 - 10**18 + 10**9


class Crash(BaseException):
    """As if the process had died."""


CHANGING = ("rename", "symlink", "mkdir", "rmdir", "unlink", "utime", "fchmod", "fchown", "chown")


def test_a_crash_in_the_middle_is_finished_by_the_next_call(probe: Etc, place: Path, monkeypatch) -> None:
    """Every system call of an undo may be its last: whatever is left then, the second call ends where the first would have."""
    was, before = look(place), image(probe)
    left = None

    def counted(real):
        def call(*arguments, **options):
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise Crash
            return real(*arguments, **options)

        return call

    # What the undo does is later than every step, as it is when a person comes back to it.
    monkeypatch.setattr(base, "LATE_NS", 0)
    for name in CHANGING:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    crashes = 0
    while crashes < 200:
        replace(place / "hostname", "other\n")
        (place / "systemd/system/multi-user.target.wants/cron.service").unlink()
        (place / "systemd/system/multi-user.target.wants").rmdir()
        enable(place, "net.service", "network-online.target.wants")
        windows = ((0, time.time_ns()),)
        time.sleep(0.02)
        circumstances = Circumstances(windows=windows, asked=windows, since=time.time_ns())
        left = crashes
        try:
            probe.after_files(before, circumstances)
        except Crash:
            crashes += 1
        else:
            break
        finally:
            left = None
        assert probe.after_files(before, circumstances).failures == ()
        assert look(place) == was, f"it died at call {crashes}"
    assert 10 <= crashes < 200
    assert look(place) == was


def test_elsewhere_a_daemon_counts_only_while_a_step_asked_one(probe: Etc, place: Path, sandbox: Path) -> None:
    before = image(probe)
    start = time.time_ns()
    replace(place / "motd", "admin or daemon?\n")
    end = time.time_ns()
    window = ((start, end),)
    told = probe.after_files(before, Circumstances(windows=window))
    assert (place / "motd").read_text() == "admin or daemon?\n"
    assert "motd" in told.notes[0]
    assert probe.compare(before, image(probe), Circumstances(windows=window)) == []
    asked = Circumstances(windows=window, asked=window, attic=str(sandbox / "attic"))
    outcome = probe.after_files(before, asked)
    assert (place / "motd").read_text() == "not ours\n"
    (kept,) = (sandbox / "attic").iterdir()
    assert kept.read_text() == "admin or daemon?\n", "never silently overwritten"
    assert str(kept) in outcome.notes[0]


def test_drift_is_left_to_the_undo_of_the_files(probe: Etc, place: Path) -> None:
    before = image(probe)
    replace(place / "hostname", "drifted\n")
    circumstances = Circumstances(spared=frozenset({os.fsencode(place / "hostname")}))
    assert probe.after_files(before, circumstances).failures == ()
    assert (place / "hostname").read_text() == "drifted\n"
    assert probe.compare(before, image(probe), circumstances) == []


def test_what_has_not_changed_is_not_read_again(probe: Etc, place: Path, monkeypatch) -> None:
    image(probe)
    time.sleep(0.1)
    first = image(probe)  # by now the clock has moved on from the last change
    opened: list[object] = []
    real = os.open

    def counting(path, *arguments, **options):
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", counting)
    assert image(probe) == first
    assert [path for path in opened if os.fsencode(place) in os.fsencode(path)] == []
    (place / "hostname").write_text("h2\n")
    assert image(probe) != first
    assert [path for path in opened if os.fsencode(place) in os.fsencode(path)] == [os.fsencode(place / "hostname")]


def test_a_change_within_the_clocks_tick_is_seen(probe: Etc, place: Path) -> None:
    for number in range(50):
        (place / "hostname").write_text(f"h{number:02}\n")
        before = image(probe)
        (place / "hostname").write_text(f"x{number:02}\n")
        assert len(probe.compare(before, image(probe))) == 1


def test_a_damaged_content_is_never_put_back(probe: Etc, place: Path, sandbox: Path) -> None:
    before = image(probe)
    for kept in (sandbox / "state" / "contents").rglob("*"):
        if kept.is_file() and kept.read_bytes() == b"h1\n":
            kept.write_bytes(b"")
    replace(place / "hostname", "other\n")
    probe.after_files(before, NOW)
    assert "hostname' has" in probe.compare(before, image(probe))[0] and "cannot be put back" in probe.compare(before, image(probe))[0]
    assert (place / "hostname").read_text() == "other\n"


@pytest.mark.parametrize("what", ["the content", "the list"])
@pytest.mark.parametrize("way", ["removed", "emptied"])
def test_damage_is_named_before_anything_is_put_back(probe: Etc, sandbox: Path, what: str, way: str) -> None:
    """I7: rollback.py asks for it before the first path."""
    before = image(probe)
    assert probe.damage(before) == ""
    contents = sandbox / "state" / "contents"
    (kept,) = [
        path
        for path in contents.rglob("*")
        if path.is_file() and (path.read_bytes() == b"h1\n" if what == "the content" else path.name == before["manifest"])
    ]
    if way == "removed":
        kept.unlink()
    else:
        kept.write_bytes(b"")
    assert "missing or damaged" in probe.damage(before)
    assert ("hostname is" in probe.damage(before)) == (what == "the content")


def test_only_what_images_need_is_kept(probe: Etc, place: Path, sandbox: Path) -> None:
    def kept() -> int:
        for path in (sandbox / "state" / "contents").rglob("*"):
            os.utime(path, (1, 1))
        return sum(path.is_file() for path in (sandbox / "state" / "contents").rglob("*"))

    first = image(probe)
    replace(place / "hostname", "other\n")
    second = image(probe)
    both = kept()
    probe.discard([first, second])
    assert kept() == both
    probe.discard([second])
    assert kept() == both - 2, "the first manifest and the old content"
    assert probe.compare(second, image(probe)) == []


def test_a_file_that_became_a_full_directory(probe: Etc, place: Path) -> None:
    was, before = look(place), image(probe)
    (place / "motd").unlink()
    (place / "motd" / "deep").mkdir(parents=True)
    (place / "motd" / "deep" / "file").write_text("x")
    probe.after_files(before, NOW)
    assert probe.compare(before, image(probe)) == []
    assert look(place) == was


@pytest.mark.parametrize("how", ["in place", "replaced", "both replaced"])
def test_several_names_of_a_file_stay_one(probe: Etc, place: Path, how: str) -> None:
    os.link(place / "motd", place / "systemd" / "same")
    was, before = look(place), image(probe)
    if how == "in place":
        (place / "motd").write_text("longer than it was before\n")
    else:
        replace(place / "motd", "new\n")
    if how == "both replaced":
        replace(place / "systemd" / "same", "new\n")
    probe.after_files(before, NOW)
    probe.after_files(before, NOW)
    assert look(place) == was
    assert how == "both replaced" or os.path.samefile(place / "motd", place / "systemd" / "same")


def test_inode_flags(probe: Etc, place: Path) -> None:
    """A file that may not be changed, one that became so, and an immutable directory."""
    subprocess.run(["chattr", "+i", place / "motd"], check=True)
    try:
        was, before = look(place), image(probe)
        subprocess.run(["chattr", "-i", place / "motd"], check=True)
        (place / "motd").write_text("changed\n")
        subprocess.run(["chattr", "+a", place / "motd"], check=True)
        replace(place / "hostname", "other\n")
        subprocess.run(["chattr", "+i", place / "hostname", place / "systemd"], check=True)
        assert len(probe.compare(before, image(probe))) == 4, "and the time of the directory"
        probe.after_files(before, NOW)
        assert probe.compare(before, image(probe)) == []
        assert look(place) == was
        flags = subprocess.run(
            ["lsattr", "-d", place / "motd", place / "hostname", place / "systemd"], capture_output=True, text=True, check=True
        ).stdout
        assert [line.split()[0].count("i") for line in flags.splitlines()] == [1, 0, 0]
    finally:
        subprocess.run(["chattr", "-R", "-f", "-ia", place], check=False)


def test_a_manifest_of_another_version_is_made_anew(probe: Etc, place: Path, monkeypatch) -> None:
    monkeypatch.setattr(manifest, "FORMAT", 0)
    old = image(probe)
    monkeypatch.undo()
    assert image(probe) != old
    with pytest.raises(OSError, match="missing or damaged"):
        probe.after_files(old, NOW)


@pytest.mark.parametrize("way", ["emptied", "missing"])
def test_a_content_that_was_lost_is_kept_again(place: Path, probe: Etc, sandbox: Path, way: str) -> None:
    """Else the image of a file that nobody changes would be damaged for ever, and each undo refused (I7)."""
    time.sleep(0.1)  # all of it is settled
    first = image(probe)
    assert probe.damage(first) == ""
    path = next(path for path in (sandbox / "state" / "contents").rglob("*") if path.is_file() and path.read_bytes() == b"h1\n")
    if way == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
    assert probe.damage(first) != ""
    assert probe.damage(image(probe)) == ""


@pytest.mark.parametrize("what", ["a leftover", "a directory", "a file"])
def test_one_paths_error_is_its_own(probe: Etc, place: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """It is told, the rest is put back, and the next call finishes it."""
    leftover, wants = place / "systemd" / ".acid-fresh-0123456789ab", place / "systemd/system/multi-user.target.wants"
    was, before = look(place), image(probe)
    if what == "a leftover":
        leftover.write_text("of one that died")
    replace(place / "hostname", "other\n")
    replace(place / "systemd/system.conf", "[Manager]\nX=1\n")
    (wants / "cron.service").unlink()

    def failing(call, path: bytes):
        def act(one, *more, **named):
            if one == path:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(one, *more, **named)

        return act

    with monkeypatch.context() as patch:
        if what == "a leftover":
            patch.setattr(os, "unlink", failing(os.unlink, os.fsencode(leftover)))
        elif what == "a directory":
            patch.setattr(etc, "settle_directory", failing(etc.settle_directory, os.fsencode(wants)))
        else:
            patch.setattr(etc, "put_back", failing(etc.put_back, os.fsencode(place / "hostname")))
        outcome = probe.after_files(before, NOW)
        told = " ".join([*outcome.failures, *(probe.compare(before, image(probe)) if what != "a directory" else [])])
    name = {"a leftover": leftover, "a directory": wants, "a file": place / "hostname"}[what]
    assert str(name) in told
    assert (place / "systemd/system.conf").read_text() == "[Manager]\n"
    assert (place / "hostname").read_text() == ("other\n" if what == "a file" else "h1\n")
    assert probe.after_files(before, NOW).failures == ()
    assert look(place) == was


def test_a_number_that_another_file_has_by_now_makes_it_no_name_of_it(probe: Etc, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ext4 gives the number of a file that was removed to the next one."""
    was, before = look(place), image(probe)
    number = read(os.fsencode(place / "hostname")).inode
    replace(place / "hostname", "other\n")
    seen = etc.read_tree

    def recycled(*arguments, **named):
        found = seen(*arguments, **named)
        path = os.fsencode(place / "motd")
        return {**found, path: replace_fields(found[path], inode=number)}

    with monkeypatch.context() as patch:
        patch.setattr(etc, "read_tree", recycled)
        probe.after_files(before, NOW)
    assert look(place) == was


def test_a_held_package_keeps_its_conffiles(place: Path, probe: Etc) -> None:
    """Finding 17: somebody else's package, of which no step and so no undo log knows, came while a step asked a daemon."""
    before = image(probe)
    window = ((time.time_ns(), time.time_ns() + 10**10),)
    (place / "theirs.d").mkdir()
    (place / "theirs.d" / "theirs.conf").write_text("conffile")
    (place / "alternatives").mkdir()
    (place / "alternatives" / "editor").symlink_to("/usr/bin/theirs")
    (place / "motd").write_text("changed")
    enable(place, "daemons.service")
    names = ("theirs.d", "theirs.d/theirs.conf", "alternatives", "systemd", "systemd/system")
    held = frozenset(os.fsencode(place / name) for name in names)
    about = Circumstances(windows=window, asked=window, held=held, held_trees=(os.fsencode(place / "alternatives"),))
    outcome = probe.after_files(before, about)
    assert (place / "theirs.d" / "theirs.conf").read_text() == "conffile"
    assert os.readlink(place / "alternatives" / "editor") == "/usr/bin/theirs"
    assert any("theirs.conf" in note and "held back with its package" in note for note in outcome.notes)
    # What is not the package's is put back all the same, also in a directory that its list names.
    assert (place / "motd").read_text() == "not ours\n"
    assert not (place / "systemd" / "system" / "multi-user.target.wants" / "daemons.service").is_symlink()
    assert probe.compare(before, image(probe), about) == []
