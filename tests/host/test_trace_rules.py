# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""The rules that came out of attacking the trace with real programs: a test for each (docs/trace-rules.md says which rule each number is).

Each on a real host: begin, steps by `acidctl exec`, rollback;
a comparison that knows nothing of the engine says whether the tree is as before.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import compiled, ext4, rig, rigs  # noqa: F401
from rig import PLACE, Rig

FILES = "echo one > one; echo two > two; mkdir d; echo three > d/three; seq 5000 > big"


def test_rule_01_mount_namespaces_and_bind_mounts(rig: Rig) -> None:
    """Places are named by file system, directory handle and name, not by path."""
    rig.exact(
        """unshare -m sh -ec 'mount --bind d /srv/rig/view; cd /srv/rig/view
           echo changed > three; echo more > four; mv three five; ln five six; mount --bind /srv/rig/t /mnt; rm /mnt/big;
           mv /mnt/one /mnt/two'""",
        "bwrap --dev-bind / / --bind d /mnt sh -c 'rm -f /mnt/five; echo bwrap > /mnt/three; mkdir /mnt/sub'",
        prepare=f"{FILES}; mkdir -p /srv/rig/view",
    )


def test_rule_01_a_step_that_begins_in_another_namespace(rig: Rig) -> None:
    """A session of pam_namespace, or of an sshd with PrivateTmp: the step's first process is there already."""
    rig.sh(f"{FILES}; mkdir other; echo other > other/three; seq 5000 > other/big")
    before = rig.look("/srv/rig/t/other"), rig.look("/srv/rig/t/d")
    rig.begin()
    inner = rig.argv(["sh", "-c", "cd /; echo changed > /srv/rig/t/d/three; rm /srv/rig/t/d/big; echo new > /srv/rig/t/d/new"])
    rig.write("/srv/rig/inner", f"mount --bind /srv/rig/t/other /srv/rig/t/d\nexec {shlex.join(inner)}\n")
    rig.sh("unshare -m --propagation private sh /srv/rig/inner")
    assert rig.changed(before[0], "/srv/rig/t/other") and not rig.changed(before[1], "/srv/rig/t/d")
    rig.rollback()
    assert rig.changed(before[0], "/srv/rig/t/other") == [] == rig.changed(before[1], "/srv/rig/t/d")


def test_rule_01_chroot(rig: Rig) -> None:
    """Paths are resolved inside the caller's root."""
    rig.exact(
        "chroot jail /bin/busybox sh -c 'echo x > /etc/one; mv /etc/two /etc/three; ln -s /etc/three /etc/link; "
        "echo y > /etc/link; cd /etc; rm ../../../four'",
        prepare="mkdir -p jail/bin jail/etc; cp $(command -v busybox) jail/bin/; for n in one two; "
        "do echo $n > jail/etc/$n; done; echo 4 > jail/four",
    )


def test_rule_02_calls_of_another_abi(rig: Rig, compiled: Callable[..., bytes]) -> None:
    """i386 programs, and `int $0x80` in a 64-bit program, are never read as x86_64's numbers."""
    common = ("-nostdlib", "-static", "-no-pie", "-fno-stack-protector")
    rig.write("/srv/rig/int80", compiled("int80.c", *common, "-fcf-protection=none"), mode=0o755)
    rig.write("/srv/rig/i386", compiled("int80.c", *common, "-m32"), mode=0o755)
    rig.exact(
        "cd a && /srv/rig/int80 && [ ! -e old ] && [ -e to ] && [ \"$(cat kept)\" = '32 bit' ]",
        "cd b && /srv/rig/i386 && [ ! -e old ] && [ -e to ] && [ \"$(cat kept)\" = '32 bit' ]",
        prepare="for n in a b; do mkdir $n; echo 1 > $n/old; seq 1000 > $n/from; seq 3000 > $n/kept; done",
    )


def test_rule_03_magic_links(rig: Rig) -> None:
    """/proc/self, thread-self, cwd and fd are the caller's, not the agent's."""
    rig.exact(
        "echo x > /proc/self/cwd/one; mv /proc/self/cwd/two /proc/self/cwd/d/two; exec 7<d/three; "
        "echo y > /proc/self/fd/7; exec 8<d; rm /proc/$$/fd/8/two",
        "echo x > /proc/thread-self/cwd/big; ln -s /proc/self/cwd/one link; echo z >> link; chmod 600 /proc/self/root/srv/rig/t/d",
        prepare=FILES,
    )


def test_rule_03_openat2(rig: Rig) -> None:
    """openat2's own resolve flags are applied."""
    rig.exact_python(
        """
d = os.open('d', os.O_RDONLY)
os.write(openat2(d, b'/three', os.O_WRONLY | os.O_TRUNC, 0, 0x10), b'in root')     # RESOLVE_IN_ROOT
os.write(openat2(d, b'/../../made', os.O_WRONLY | os.O_CREAT, 0o600, 0x10), b'in root')
os.write(openat2(d, b'beneath', os.O_WRONLY | os.O_CREAT, 0o644, 0x08), b'beneath')
os.write(openat2(AT, b'big', os.O_RDWR, 0, 0x04), b'no symlinks')
os.write(openat2(d, b'up/one', os.O_WRONLY), b'through a symlink')
try:
    openat2(d, b'../two', os.O_WRONLY | os.O_TRUNC, 0, 0x08)
except OSError:
    pass
else:
    raise SystemExit('not beneath')
""",
        prepare=f"{FILES}; ln -s .. d/up",
    )


def test_rule_04_appending_is_not_only_appending(rig: Rig) -> None:
    """a+ and truncate, F_SETFL, ftruncate, pwritev2 with RWF_NOAPPEND, shared mappings."""
    rig.exact_python(
        """
import fcntl, mmap
with open('big', 'a+') as f:
    f.write('tail'); f.truncate(10)
fd = os.open('a', os.O_WRONLY | os.O_APPEND); fcntl.fcntl(fd, fcntl.F_SETFL, 0); os.pwrite(fd, b'XXXX', 3); os.close(fd)
fd = os.open('b', os.O_WRONLY | os.O_APPEND); os.ftruncate(fd, 5); os.close(fd)
fd = os.open('c', os.O_RDWR)
with mmap.mmap(fd, 0) as m:
    os.close(fd); m[100:103] = b'map'
fd = os.open('e', os.O_WRONLY | os.O_APPEND)
buffer = ctypes.create_string_buffer(b'NOAPPEND')
vector = struct.pack('QQ', ctypes.addressof(buffer), 8)
try:
    call('pwritev2', fd, vector, 1, 2, 0, 0x20)
except OSError as error:
    if error.errno not in (95, 22): raise
os.posix_fallocate(fd, 0, 100000)
""".replace("import fcntl", "import ctypes, struct, fcntl"),
        prepare=f"{FILES}; for n in a b c e; do cp big $n; done",
    )


def test_rule_05_io_uring_is_refused(rig: Rig) -> None:
    """A ring's operations are no system calls: programs get ENOSYS and fall back."""
    rig.begin()
    done = rig.python("try: call('io_uring_setup', 8, bytes(120))\nexcept OSError as error: print(error.errno)")
    assert done.out == "38\n"
    rig.rollback()


def test_rule_06_overlay_over_an_existing_upper_directory(rig: Rig) -> None:
    """Where the kernel itself would write, the step is refused or the change is named irreversible; never silent."""
    rig.sh("mkdir lower upper work merged; echo low > lower/l; echo up > upper/u")
    before = rig.look()
    rig.begin()
    done = rig.step(
        "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none merged && echo changed > merged/u; umount merged", good=None
    )
    summary = rig.rollback(exact=False)
    assert rig.changed(before) == [] or summary["irreversible"], (done, summary)


def test_rule_07_calls_beyond_the_obvious(rig: Rig) -> None:
    """open_by_handle_at, setxattrat, removexattrat, file_setattr, exchange, whiteout, noreplace, futimesat, utime, fchmodat2."""
    rig.exact_python(
        """
def may(*arguments, errors=(38, 22, 95)):
    try: return call(*arguments)
    except OSError as error:
        if error.errno not in errors: raise
import struct, ctypes
h = handle_of(b'big')
fd = call('open_by_handle_at', os.open('.', os.O_RDONLY), h, os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'by handle')
value = ctypes.create_string_buffer(b'value')
may('setxattrat', AT, b'one', 0, b'user.at', struct.pack('QII', ctypes.addressof(value), 5, 0), 16)
may('removexattrat', AT, b'two', 0, b'user.old')
may('file_setattr', AT, b'd/three', struct.pack('QIIII', 0x8, 0, 0, 0, 0), 24, 0)   # FS_XFLAG_IMMUTABLE
call('renameat2', AT, b'one', AT, b'two', EXCHANGE)
call('renameat2', AT, b'd', AT, b'other', EXCHANGE)
call('renameat2', AT, b'one', AT, b'fresh', NOREPLACE)
may('renameat2', AT, b'two', AT, b'white', WHITEOUT)
may('fchmodat2', AT, b'fresh', 0o611, 0x100)
call('utime', b'fresh', struct.pack('qq', 1, 2))
call('futimesat', AT, b'fresh', struct.pack('qqqq', 3, 4, 5, 6))
call('creat', b'created', 0o644); call('mknod', b'node', 0o10600, 0); call('truncate', b'fresh', 1)
""",
        prepare=f"{FILES}; setfattr -n user.old -v 1 two; mkdir other; echo > other/x",
    )


def test_rule_07_a_handle_and_a_newborn_directory(rig: Rig) -> None:
    """The descriptor of open_by_handle_at says no more than the file system: what the handle means is old all the same."""
    rig.exact_python(
        """
os.mkdir('new')
fd = call('open_by_handle_at', os.open('new', os.O_RDONLY), handle_of(b'big'), os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'by handle')
""",
        prepare=FILES,
    )


def test_bare_names_in_one_directory(rig: Rig) -> None:
    """What takes the express lane, what may not, and a descriptor's number that comes to mean another directory."""
    rig.exact_python(
        """
d, other = os.open('d', os.O_RDONLY), os.open('other', os.O_RDONLY)
for n in range(50):
    os.chmod('f%d' % n, 0o711, dir_fd=d)
os.chmod('link', 0o755, dir_fd=d)
os.chmod('f1', 0o600, dir_fd=d)
open('d/new', 'w').close()
os.chmod('new', 0o600, dir_fd=d)
os.rename('d/f2', 'd/f3')
os.chmod('f3', 0o640, dir_fd=d)
os.utime('f6', ns=(1, 2), dir_fd=d)
os.utime('link', ns=(3, 4), dir_fd=d, follow_symlinks=False)
os.chown('f7', 1, 1, dir_fd=d)
os.setxattr('d/f4', 'user.x', b'x')
os.unlink('f5', dir_fd=d)
os.dup2(other, d)
for n in range(5):
    os.chmod('f%d' % n, 0o604, dir_fd=d)
os.chmod('hard', 0o666, dir_fd=d)
""",
        prepare=f"{FILES}; mkdir other; for n in $(seq 0 49); do echo $n > d/f$n; echo $n > other/f$n; done; ln -s ../one d/link; "
        "ln d/f5 other/hard; setfacl -m u:1:rw d/f4",
    )


def test_rule_07_descriptors_from_outside(rig: Rig) -> None:
    """0 to 2 redirected outside the shim are imaged; what is open above 2 is closed."""
    rig.sh(f"{FILES}; cp big out; cp big err; cp big nine")
    before = rig.look()
    rig.begin()
    inner = " ".join("'" + word + "'" for word in rig.argv(["sh", "-c", "echo in; echo err >&2; (echo nine >&9) 2>/dev/null || true"]))
    rig.sh(f"{inner} 0<>one 1<>out 2<>err 9<>nine")
    changed = rig.changed(before)
    assert any(line.startswith("out: content") for line in changed), changed
    assert not any(line.startswith("nine: content") for line in changed), changed
    rig.rollback()
    assert rig.changed(before) == []


def test_rule_08_no_image_no_change(rig: Rig) -> None:
    """Where no image can be taken, here on an overlay without file handles, the call gets EIO and nothing happens."""
    rig.sh("mkdir lower upper work merged; echo low > lower/l; mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none merged")
    before = rig.look()
    rig.begin()
    done = rig.step("echo changed > merged/l; rm merged/l; chmod 600 merged/l; mkdir merged/d", good=False)
    assert done.err.count("Input/output error") >= 2, done
    assert rig.changed(before) == []
    rig.rollback()
    assert rig.changed(before) == []
    rig.sh("umount merged")


def test_rule_09_a_file_server_inside_the_step(rig: Rig) -> None:
    """FUSE served and written to by the same step: nobody waits for anybody, and what it wrote to disk comes back."""
    rig.sh("mkdir back mnt; echo 1 > back/one; echo 2 > back/two")
    rig.write("/srv/rig/serve.py", PASSTHROUGH)
    rig.exact(
        """python3 -B /srv/rig/serve.py back mnt & for i in $(seq 600); do grep -q ' /srv/rig/t/mnt fuse' /proc/mounts && break;
        sleep 0.05; done
           echo changed > mnt/one && mv mnt/two mnt/three && mkdir mnt/d && cat mnt/one; umount mnt; wait"""
    )


def test_rule_11_an_exit_code_proves_nothing(rig: Rig) -> None:
    """A step that ends with 0 after the agent died is not good: the transaction is doomed (more in test_agent.py)."""
    rig.sh(FILES)
    before = rig.look()
    rig.begin()
    rig.step("kill -9 $(systemctl show -P MainPID acid-agent); (sleep 2; exit 0); echo x > one; echo y; exit 0", good=None)
    done = rig.ctl("commit", tx=rig.tx, token=rig.token, steps=[])
    assert done.code != 0
    wait_until_aborted(rig)
    assert rig.changed(before) == []


def test_rule_12_lock_files_are_gone_when_they_are_removed(rig: Rig) -> None:
    """No link is kept to a small file: who holds it open sees a link count of 0."""
    rig.exact_python(
        """
fd = os.open('lock', os.O_RDWR)
os.unlink('lock')
if os.fstat(fd).st_nlink != 0: raise SystemExit('the lock file lives on')
put('lock', 'mine')
""",
        prepare="echo 4711 > lock; : > empty",
    )


def test_rule_13_a_refused_unlink_leaves_no_link(rig: Rig) -> None:
    """In a sticky directory: after the refusal the link count is as before, for the thread itself and after it has ended."""
    rig.exact(
        """setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'rm -f sticky/big sticky/other 2>/dev/null; : > sticky/mine'
           [ "$(stat -c %h sticky/big)" = 1 ] || { stat -c %h sticky/big; exit 1; }""",
        prepare="mkdir sticky; chmod 1777 sticky; seq 5000 > sticky/big; seq 5000 > sticky/other",
    )


def test_rule_14_a_transaction_inside_a_step(rig: Rig) -> None:
    """A process has one listener: the inner step is refused by name, and the outer one goes on."""
    rig.sh(FILES)
    before = rig.look()
    rig.begin()
    inner = " ".join("'" + word + "'" for word in rig.argv(["touch", "inner"]))
    done = rig.step(f"{inner}; echo $?; echo outer > outer")
    assert done.out == "97\n", done
    assert "acid: trace-unavailable: this process already has a seccomp listener" in done.err
    assert [line for line in rig.changed(before) if "inner" in line] == []
    rig.rollback()
    assert rig.changed(before) == []


def test_rule_15_plain_strace_works(rig: Rig) -> None:
    """strace -f in a step sees the calls, and they are traced all the same."""
    (done,) = rig.exact("strace -f -e trace=unlinkat -o log rm one; grep -c unlinkat log", prepare=FILES)
    assert int(done.out) >= 1


def test_rule_16_processes_left_behind_are_killed_before_the_undo(rig: Rig) -> None:
    """They hold open files, and would write into what is restored."""
    rig.sh(FILES)
    before = rig.look()
    rig.begin()
    done = rig.step(
        "(while :; do echo more >> one; echo x > new; rm -f new; done) > /dev/null 2>&1 & echo $!; "
        "(setsid sleep 1000 &) > /dev/null 2>&1; exec 5>>two; sleep 0.2"
    )
    rig.rollback()
    assert rig.changed(before) == []
    time.sleep(0.2)
    assert rig.changed(before) == []
    assert rig.sh(f"kill -0 {done.out.strip()}", good=False).code != 0
    assert rig.sh("pgrep -fx 'sleep 1000'", good=False).code != 0


def test_rule_18_subvolumes(rig: Rig) -> None:
    """A store for each subvolume: links do not leave one."""
    rig.exact(
        "mv sub/big one; rm sub/two; echo x > sub/d/three; mkdir sub/d/e; mv sub/d sub/f; ln sub/four sub/five",
        prepare=f"python3 {PLACE}/calls.py sub; cd sub; {FILES}; seq 2000 > four; cd ..; {FILES}",
    )
    rig.sh("echo five > sub/five")
    before = rig.look()
    rig.begin()
    rig.step(f"! python3 -B {PLACE}/calls.py sub")
    assert not rig.rollback()["irreversible"], "its name is taken, so none was made"
    rig.begin()
    rig.step(f"python3 -B {PLACE}/calls.py born; mv sub/five born/; rm -rf sub/d")
    summary = rig.rollback(exact=False)
    assert [line for line in rig.changed(before) if not line.startswith(("born", ".: mtime"))] == []
    assert summary["irreversible"]  # a subvolume that was made is named, not removed


def test_rule_18_too_many_links(ext4: Rig) -> None:
    """An inode with as many links as it can have is copied."""
    ext4.sh('seq 5000 > f; mkdir l; python3 -c \'import os\nfor i in range(64999): os.link("f", "l/%d" % i)\'', seconds=200)
    before = ext4.look("/srv/rig/t/f")
    ext4.begin()
    ext4.step("rm f; seq 3 > f; rm l/77; echo x >> l/78", seconds=200)
    ext4.rollback()
    assert ext4.changed(before, "/srv/rig/t/f") == []
    assert ext4.sh("stat -c %h f; cmp f l/77 && cmp f l/78 && [ f -ef l/77 ] && [ f -ef l/78 ]").out == "65000\n"


def test_rule_20_a_directory_that_grew(ext4: Rig) -> None:
    """The kernel's own flags stay; what a user may set comes back."""
    ext4.exact(
        "for i in $(seq 2000); do : > d/a-rather-long-name-so-that-blocks-are-filled-$i; done; chattr +d d; chattr +A one", prepare=FILES
    )


def test_rule_21_what_others_put_into_a_born_directory(rig: Rig) -> None:
    """The tree is moved aside whole, not deleted."""
    rig.sh(FILES)
    before = rig.look()
    rig.begin()
    rig.step("mkdir born; echo mine > born/mine")
    rig.sh("sleep 0.5; echo precious > born/theirs")  # what comes within milliseconds of the step's end is taken for its own
    rig.rollback()
    assert rig.changed(before) == []
    assert "precious" in rig.sh(f"cat $(find /var/lib/acid/store/{rig.tx} -name theirs)").out


def test_rule_22_those_who_have_a_file_mapped(rig: Rig) -> None:
    """Contents come back in place and the cut comes last: no SIGBUS for a process that has the file mapped."""
    rig.sh("seq 200000 > mapped")
    before = rig.look()
    rig.write("/srv/rig/mapper.py", MAPPER)
    mapper = rig.start("exec python3 -B /srv/rig/mapper.py mapped")
    rig.begin()
    rig.step(
        "sed 's/7/8/g' mapped > /srv/rig/x; cat /srv/rig/x > /dev/null; "
        "dd if=/srv/rig/x of=mapped conv=notrunc status=none; seq 100000 >> mapped"
    )
    rig.rollback()
    assert rig.changed(before) == []
    rig.sh(f"kill -0 {mapper} && kill {mapper}")


def test_rule_23_recycled_inode_numbers(ext4: Rig) -> None:
    """A new file with an old one's inode number is not taken for it."""
    (done, _second) = ext4.exact(
        "stat -c %i one; rm one two d/three; for i in $(seq 20); do echo new > n$i; stat -c %i n$i; done",
        "for i in $(seq 20); do echo again >> n$i; rm n$i; echo third > m$i; done",
        prepare=FILES,
    )
    numbers = done.out.split()
    assert numbers[0] in numbers[1:], "no inode number was recycled, so this shows nothing"


def test_rule_25_a_sparse_file_of_300_gb(rig: Rig) -> None:
    """Holes are not copied, and come back as holes."""
    start = time.monotonic()
    rig.exact(
        "echo x | dd of=sparse bs=1 seek=250000000000 conv=notrunc status=none; truncate -s 100G sparse2; rm sparse3",
        prepare="""truncate -s 300G sparse; for at in 0 100000000000 299999999000;
        do echo data | dd of=sparse bs=1 seek=$at conv=notrunc status=none; done
                   cp --sparse=always --reflink=never sparse sparse2 2>/dev/null & sleep 1; kill $! 2>/dev/null; wait; rm -f sparse2
                   truncate -s 200G sparse2; echo end | dd of=sparse2 bs=1 seek=150000000000 conv=notrunc status=none;
                   truncate -s 50G sparse3""",
    )
    assert time.monotonic() - start < 60


def test_rule_27_renamed_in_from_a_place_that_is_not_covered(rig: Rig) -> None:
    """Ansible's own atomic_move: the remote temp directory is outside and soon gone."""
    rig.sh(f"{FILES}; mkdir -p /root/.ansible/tmp/play")
    before = rig.look()
    rig.begin(exclude=["/root/.ansible/tmp"])
    rig.step(
        "cd /root/.ansible/tmp/play; echo new > source; seq 9000 > fresh; chmod 640 source; "
        "mv source /srv/rig/t/one; mv fresh /srv/rig/t/fresh"
    )
    rig.step("rm -rf /root/.ansible/tmp/play")
    assert rig.changed(before)
    rig.rollback()
    assert rig.changed(before) == []


def test_rule_28_records_below_what_was_born_and_removed(rig: Rig) -> None:
    """Undo goes on past what is moot, and the verification decides."""
    rig.exact(
        "mkdir -p x/y/z; mv one x/y/z/; mv d x/y/; echo more > x/y/z/file; rm -rf x; echo last > two",
        "mkdir x; echo again > x/y; mv big x/; rm -r x",
        prepare=FILES,
    )


#: programs that mean to leave nothing at all in m
EMPTYING = {
    "find": "find m -mindepth 1 -delete",
    "rsync": "rsync -a --delete empty/ m/",
    "rm": "rm -r m/* m/.acid-store && rm -rf m/.acid-store",
    "python": 'python3 -c \'import os, shutil\nfor one in os.scandir("m"):\n'
    "    shutil.rmtree(one.path) if one.is_dir(follow_symlinks=False) else os.unlink(one.path)'",
}
OWN = (
    "mkdir m empty; mount -t tmpfs none m; cd m; mkdir -p d/e; echo 1 > d/e/f; seq 5000 > d/big; seq 5000 > big; ln big hard; ln -s d link"
)


@pytest.mark.parametrize("program", EMPTYING)
def test_a_whole_file_system_is_emptied(ext4: Rig, program: str) -> None:
    """The store of its before-images lies in it. To what empties the tree it goes like all else, but it stays."""
    ext4.exact(
        "rm m/big; echo first > m/first",
        f"{EMPTYING[program]}; code=$?; ls -A m; exit $code",
        '[ "$(ls -A m)" = .acid-store ] && echo again > m/again',
        prepare=OWN,
    )
    ext4.sh("umount m")


def test_the_store_is_not_moved_nor_added_to(ext4: Rig) -> None:
    """A step that tries is told EIO, and nothing happens."""
    ext4.sh(OWN)
    before = ext4.look()
    ext4.begin()
    ext4.step("rm m/big; echo first > m/first; cp m/hard m/x; echo changed > m/d/big")
    tried = (
        "mv m/.acid-store m/away", "mv m/.acid-store/$TX m/away",
        "touch m/.acid-store/x", "mkdir m/.acid-store/$TX/x", "ln m/x m/.acid-store/$TX/x", "mv m/x m/.acid-store/$TX/",
    )  # fmt: skip
    inside = ext4.sh("find m/.acid-store -printf '%P %i %s\\n' | sort").out
    for one in tried:
        done = ext4.step(f"TX={ext4.tx}; {one}", good=False)
        assert "Input/output error" in done.err, (one, done)
    assert ext4.sh("find m/.acid-store -printf '%P %i %s\\n' | sort").out == inside
    ext4.rollback()
    assert ext4.changed(before) == []
    ext4.sh("umount m")


def wait_until_aborted(rig: Rig) -> None:
    """The agent, started again by systemd, undoes by itself."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        known = {value["tx"]: value["state"] for value in rig.ctl("list").json["transactions"]}
        if known[rig.tx] == "ABORTED":
            return
        assert known[rig.tx] in ("ACTIVE", "DOOMED", "ABORTING"), known[rig.tx]
        time.sleep(0.1)
    raise AssertionError(f"{rig.tx} is {known[rig.tx]} after 30 s")


MAPPER = """
import mmap, sys, time
with open(sys.argv[1], "rb") as f:
    m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
while True:
    sum(m[::4096]); time.sleep(0.001)
"""

PASSTHROUGH = """
import os, sys
from fuse import FUSE, FuseOSError, Operations

class Through(Operations):
    def __init__(self, root): self.root = os.path.abspath(root)
    def _at(self, path): return self.root + path
    def __call__(self, op, *args):
        try: return super().__call__(op, *args)
        except OSError as error: raise FuseOSError(error.errno) from error
    def getattr(self, path, fh=None):
        info = os.lstat(self._at(path))
        return {k: getattr(info, k) for k in ("st_mode", "st_uid", "st_gid", "st_size", "st_nlink", "st_mtime", "st_atime", "st_ctime")}
    def readdir(self, path, fh): return [".", "..", *os.listdir(self._at(path))]
    def create(self, path, mode, fi=None): return os.open(self._at(path), os.O_RDWR | os.O_CREAT, mode)
    def open(self, path, flags): return os.open(self._at(path), flags & ~os.O_TRUNC)
    def truncate(self, path, length, fh=None): os.truncate(self._at(path), length)
    def read(self, path, size, offset, fh): return os.pread(fh, size, offset)
    def write(self, path, data, offset, fh): return os.pwrite(fh, data, offset)
    def release(self, path, fh): os.close(fh)
    def rename(self, old, new): os.rename(self._at(old), self._at(new))
    def mkdir(self, path, mode): os.mkdir(self._at(path), mode)
    def unlink(self, path): os.unlink(self._at(path))

FUSE(Through(sys.argv[1]), os.path.abspath(sys.argv[2]), foreground=True, nothreads=True)
"""
