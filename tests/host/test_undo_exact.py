# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Places and inodes of every kind, changed in every way, come back exactly."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import any_rig, ext4, rig, rigs  # noqa: F401
from rig import Rig

FILES = "echo one > one; echo two > two; mkdir d; echo three > d/three; seq 5000 > big"


def test_names(rig: Rig) -> None:
    """255 bytes, not UTF-8, newlines, backslashes, a dash, and what looks like the store's own names."""
    names = "n=$(printf 'x%.0s' {1..255}); set -- \"$n\" $'\\xff\\xfe' $'new\\nline' 'back\\slash' -dash ' ' $'\\x01' c1 s-1 .acid"
    rig.exact(
        f"{names}; for f; do echo more >> ./\"$f\"; done; mv -- \"$n\" -dash ./d; rm -- ./$'\\xff\\xfe' ./$'new\\nline'; mv ./' ' \"$n\"",
        f"{names}; rm -rf -- * .acid; mkdir -- \"$n\" -dash; ln -s x $'\\xfd'",
        prepare=f'{names}; for f; do printf %s x > ./"$f"; done; mkdir d',
    )


def test_paths_longer_than_path_max(rig: Rig) -> None:
    deep = "n=$(printf 'y%.0s' {1..200}); for i in $(seq 30); do mkdir -p $n; cd -P ./$n 2>/dev/null || break; done"
    rig.exact(
        f"{deep}; echo changed > leaf; rm other; mkdir born; mv leaf born/; chmod 700 .",
        "rm -rf yy*",
        prepare=f"{deep}; echo leaf > leaf; seq 3000 > other",
    )


def test_directories_moved_swapped_and_replaced(rig: Rig) -> None:
    rig.exact(
        "mv a b; mv c/d d; mv b c/; ln -s c a; rm -rf e; ln -s /nowhere e",
        'python3 -c \'import sys; sys.path.insert(0, "/opt/rig"); from calls import *; call("renameat2", AT, b"f", AT, b"g", 2); '
        'call("renameat2", AT, b"one", AT, b"two", 2)\'',
        "mkdir new; mv f new/; mv one new/; rm -r new; mv two x; mv x one",
        prepare="mkdir -p a/1 c/d e/e f/1 g/2; echo > a/1/x; echo > c/d/y; echo > e/e/z; echo 1 > one; seq 5000 > two",
    )


def test_directories_moved_on_another_file_system(rig: Rig) -> None:
    """Found again by the engine's own mount, not by path."""
    rig.exact("mv m/a m/c/x; mv m/c/x/b m/b; rm -r m/c", prepare="mkdir m; mount -t tmpfs none m; mkdir -p m/a/b m/c; echo 1 > m/a/b/f")
    rig.sh("umount m")


def test_bind_mounts_of_the_root_file_system(ext4: Rig) -> None:
    """On the way to the store and to what changes. Renames and links do not leave a mount, though it is the same file system."""
    bound = ("/var/lib/acid", "/srv/rig")
    ext4.sh("cd /; systemctl stop acid-agent; " + "; ".join(f"mount --bind {path} {path}" for path in bound))
    try:
        ext4.exact(
            "rm big; echo x > one; mkdir new; echo > new/x; mv two new/; rm -r a; mv c/d d; rmdir c",
            prepare="mkdir -p a/b c/d; echo 1 > one; ln one hard; echo 2 > two; seq 5000 > big; seq 5000 > a/b/f",
        )
    finally:
        ext4.sh("cd /; systemctl stop acid-agent; " + "; ".join(f"umount -l {path}" for path in bound))


def test_hard_links(rig: Rig) -> None:
    rig.exact(
        "rm a1 b1; echo x >> a2; mv c1 d/; ln c2 c3; sed -i s/1/2/ b2",
        "rm -f a2 b2 c2 c3 d/c1; ln a3 a1",
        prepare="mkdir d; echo a > a1; ln a1 a2; ln a1 a3; seq 5000 > b1; ln b1 b2; seq 5000 > c1; ln c1 c2",
    )


def test_metadata(rig: Rig) -> None:
    rig.exact(
        "chmod 4711 one; chown 7:8 one two d; setfacl -m u:5:rwx one; setfacl -b two; setfacl -k d; setfattr -n user.x -v new two; "
        "setfattr -x user.y two; setcap cap_net_raw+ep big; touch -d 2001-02-03 d d/three; chmod 700 s; chown -h 5:6 link; echo x > two",
        "chmod -R u=rwX,go= .; chown -R 1:1 .; setfacl -R -m g:9:rx .; touch -h link",
        prepare=f"{FILES}; cp /bin/true s; chmod 6755 s; setfacl -m u:1:r,g:2:w two; setfacl -d -m u:3:rx d; "
        f"setfattr -n user.y -v old two; "
        "ln -s one link; touch -h -d 1999-09-09 link; setcap cap_chown+ep s",
    )


def test_security_attributes(any_rig: Rig) -> None:
    """A label is an extended attribute, and is put back as such: of what was relabelled, written, replaced, removed and made anew."""
    rig = any_rig
    label = 'l() { setfattr -h -n security.selinux -v system_u:object_r:$1_t:s0 "${@:2}"; }'
    rig.exact(
        f"{label}; l other one d; setfattr -x security.selinux two; l new three; echo more >> four; rm five link; rm -r e; "
        f"cp six new; mv new six; setfattr -n security.ima -v 0x0404 seven; setfattr -x security.acid d/in; chmod 600 eight; chown 5 eight",
        f"{label}; echo > five; l etc five; ln -s one link; mkdir e; l etc e; for f in *; do l again $f; done",
        prepare=f"{label}; mkdir d e; for f in one two three four five six seven eight d/in e/in; do echo $f > $f; done; seq 3000 >> six; "
        f"rm three; echo > three; ln -s one link; l etc one two four five six seven eight d d/in e e/in link; "
        f"setfattr -n security.acid -v x d/in; setfattr -n security.ima -v 0x0102 eight; setcap cap_net_raw+ep four",
    )
    found = rig.sh("getfattr -h --only-values -n security.selinux five link e/in six | tr '\\0' ' '").out
    assert found.count("etc_t") == 4
    assert rig.sh("getfattr -d -m - three").out == ""


def test_locks(rig: Rig) -> None:
    """+i and +a set by the step, on old and on new files; and taken from and put back on what had them."""
    rig.exact(
        "echo new > new; chattr +i new one d; chattr +a two; mkdir nd; echo > nd/f; chattr +a nd/f; chattr +i nd",
        "chattr -i locked ld; echo x > locked; rm ld/x; chattr +a locked; chattr -a app; echo > app",
        prepare=f"{FILES}; echo l > locked; mkdir ld; echo > ld/x; echo a > app; chattr +i locked ld; chattr +a app",
    )
    rig.sh("chattr -i -a locked ld app")


def test_fifos_sockets_and_devices(rig: Rig) -> None:
    rig.exact(
        "rm fifo sock null; mkfifo fifo2; mv fifo3 fifo; chmod 600 zero; chown 3:4 fifo",
        prepare="mkfifo fifo fifo3; chmod 640 fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; "
        "mknod null c 1 3; mknod zero c 1 5; chown 5:6 sock; setfattr -h -n trusted.x -v 1 sock; touch -d 2003-04-05 sock",
    )


def test_nameless_files_and_whiteouts(rig: Rig) -> None:
    rig.exact_python(
        """
fd = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(fd, b'nameless')
give_name(fd, 'named')
try: call('renameat2', AT, b'one', AT, b'moved', WHITEOUT)
except OSError: os.rename('one', 'moved')
os.unlink('two'); os.link('moved', 'two')
""",
        prepare=FILES,
    )


def test_kernel_settings(rig: Rig) -> None:
    names = "net.ipv4.ip_forward net.ipv4.conf.all.rp_filter net.core.somaxconn"
    before = rig.sh(f"sysctl -n {names}").out
    rig.begin()
    rig.step("echo 1 > /proc/sys/net/ipv4/ip_forward; sysctl -q -w net.core.somaxconn=99; sysctl -q -w net.ipv4.conf.all.rp_filter=2")
    assert rig.sh(f"sysctl -n {names}").out == "1\n2\n99\n"
    rig.rollback()
    assert rig.sh(f"sysctl -n {names}").out == before


def test_a_step_that_kills_its_own_shell(rig: Rig) -> None:
    rig.sh(FILES)
    before = rig.look()
    rig.begin()
    rig.step("rm one; echo x > two; kill -9 $$", good=False)
    rig.step("echo more >> two; mv big small")
    rig.rollback()
    assert rig.changed(before) == []


def test_a_file_system_mounted_in_the_step(rig: Rig) -> None:
    """What was on it goes with it; what it hid comes back."""
    rig.sh(FILES)
    before = rig.look()
    rig.begin(probes=["mounts"])
    rig.step("mount -t tmpfs none d; echo x > d/x; mkdir d/y; echo z > one")
    rig.step("umount d; echo under > d/three; mount -t tmpfs none d; echo again > d/again")
    rig.rollback()
    assert rig.sh("grep -c /srv/rig/t /proc/mounts", good=False).out == "0\n"
    assert rig.changed(before) == []


def test_the_whole_host(rig: Rig) -> None:
    """By the lab's oracle: every path, unit, user, mount and setting."""
    before = rig.state()
    rig.begin()
    rig.step(
        "useradd -m -s /bin/sh casual; echo casual:x | chpasswd; echo 1.2.3.4 rig >> /etc/hosts; "
        "sed -i s/root/ROOT/ /etc/aliases /etc/passwd- || true"
    )
    rig.step(
        "rm -rf /usr/share/zoneinfo; mv /etc/apt /etc/apt.old; ln -sf /nowhere /etc/localtime; "
        "chmod -R go= /etc/systemd; rm -rf /var/cache/apt"
    )
    changed = len(rig.differences(before))
    rig.rollback()
    assert rig.differences(before) == []
    assert changed > 500


def test_an_old_file_moved_over_a_newborn_one_with_another_name(ext4: Rig) -> None:
    """Seen by racing processes: the newborn one was imaged as if it had been there before, and what it became later then differed."""
    ext4.exact(
        "mkdir d; head -c 1000 /dev/zero > d/a; ln d/a n; mv -f old d/a; head -c 4000 /dev/zero >> n",
        "echo more >> n; rm n",
        prepare="echo old > old",
    )


def test_a_lock_set_while_a_removal_waits_to_be_seen(ext4: Rig) -> None:
    """The link that was kept for a removal that failed cannot be dropped once the file is locked."""
    ext4.exact(
        "chattr +a d; python3 -c 'import os, subprocess\n"
        'try: os.unlink("d/big")\n'
        'except PermissionError: subprocess.run(["chattr", "+i", "d/big"], check=True)\n'
        'os.chmod("x", 0o700)\'',
        prepare="mkdir d; seq 5000 > d/big; echo x > x",
    )


def test_what_is_gone_from_a_directory_that_was_born_in_an_earlier_step_is_not_missed(rig: Rig) -> None:
    """As after a power cut that kept the directory, and not what the next step did in it."""
    before = rig.look()
    rig.begin()
    rig.step("mkdir -p born/below; seq 4000 > born/below/old; mkfifo born/fifo")
    rig.start("sleep 0.6; rm born/below/new born/fifo.new")
    rig.step("mv born/below/old born/below/new; mv born/fifo born/fifo.new; sleep 1.5")
    rig.rollback()
    assert rig.changed(before) == []
