# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a lab host, as root: times work plainly, traced as a step, and under strace, in turn. Prints one JSON object a round.

    python3 on_host.py WORK ROUNDS          WORK: chmod, rm, dpkg, sqlite, rollback, probes

Only the work is timed; preparing and rolling back are not, except for `rollback`, which is about them.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

ACIDCTL = "/usr/local/sbin/acidctl"
TREE = "/srv/bench"
FILES = 40_000
# what the filter sends to the agent, and strace knows by name
CALLS = (
    "open,creat,openat,openat2,open_by_handle_at,truncate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,mknod,mknodat,bind,"
    "unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat,utime,utimes,futimesat,utimensat,setxattr,lsetxattr,fsetxattr,"
    "removexattr,lremovexattr,fremovexattr,mount,umount2,connect,chroot,unshare,setns"
)


def encode(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


def call(verb, request):
    done = subprocess.run([ACIDCTL, verb, "--json", "--request", encode(request)], capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise SystemExit(answer["error"])
    return answer


class Transaction:
    def __init__(self):
        answer = call("begin", {"name": "bench", "owner": "bench", "options": {}})
        self.id, self.token, self.seconds = answer["tx"], answer["token"], answer["seconds"]
        self.count = 0

    def step(self, command):
        self.count += 1
        info = encode({"id": "step%d" % self.count, "task": "bench", "module": "bench", "position": ""})
        return [ACIDCTL, "exec", "--tx", self.id, "--token", str(self.token), "--step", info, "--", *command]

    def rollback(self):
        return call("rollback", {"tx": self.id, "token": self.token})


def timed(command, **options):
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    return time.monotonic() - start


def make_tree():
    shutil.rmtree(TREE, ignore_errors=True)
    for folder in range(40):
        os.makedirs("%s/%d" % (TREE, folder))
        for name in range(FILES // 40):
            with open("%s/%d/%d" % (TREE, folder, name), "w") as f:
                f.write("x" * 100)
    os.sync()


def strace(command):
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=" + CALLS, *command]


def in_turn(command, prepare, restore, *, with_strace=True):
    """Seconds of the command: plain, traced, under strace. `prepare` before each, `restore` after each but the traced one."""
    result = {}
    prepare()
    result["plain"] = timed(command)
    restore()
    prepare()
    transaction = Transaction()
    result["traced"] = timed(transaction.step(command))
    result["rollback"] = transaction.rollback()["seconds"]
    if with_strace and shutil.which("strace"):
        prepare()
        result["strace"] = timed(strace(command))
        restore()
    return result


def chmod():
    modes = iter(["700", "755"] * 1000)
    if not os.path.isdir(TREE):
        make_tree()
    return in_turn(
        ["chmod", "-R", next(modes), TREE], lambda: subprocess.run(["chmod", "-R", "u=rwx,go=rx", TREE], check=True), lambda: None
    )


def rm():
    return in_turn(["rm", "-rf", TREE], lambda: os.path.isdir(TREE) or make_tree(), lambda: None)


def dpkg():
    package = find("acid-big")
    return in_turn(
        ["dpkg", "-i", package],
        lambda: None,
        lambda: subprocess.run(["dpkg", "--purge", "acid-big"], check=True, stdout=subprocess.DEVNULL),
    )


def find(name):
    for folder, _folders, files in os.walk("/srv/repo/apt"):
        for file in sorted(files, reverse=True):
            if file.startswith(name + "_"):
                return os.path.join(folder, file)
    raise SystemExit("no package " + name)


def sqlite():
    script = (
        "import sqlite3; db = sqlite3.connect('/srv/bench.db', isolation_level=None); db.execute('pragma synchronous=off');"
        "db.execute('create table if not exists t (n)'); [db.execute('insert into t values (1)') for n in range(3000)]"
    )
    return in_turn(["python3", "-c", script], lambda: None, lambda: None)


def rollback():
    """Taking a package of 20,000 files off again: our rollback against dpkg --purge, both ending in syncfs."""
    package = find("acid-huge")
    transaction = Transaction()
    timed(transaction.step(["dpkg", "-i", package]))
    os.sync()
    start = time.monotonic()
    transaction.rollback()
    os.sync()
    result = {"rollback": time.monotonic() - start}
    timed(["dpkg", "-i", package])
    os.sync()
    start = time.monotonic()
    timed(["dpkg", "--purge", "acid-huge"])
    os.sync()
    result["purge"] = time.monotonic() - start
    return result


def probes():
    """Milliseconds of each probe's capture and of all together, as at begin; of begin itself; of `etc` where it has seen nothing yet."""
    sys.path.insert(0, "/usr/local/lib/acid/current")
    from engine.probes.etc import Etc
    from engine.probes.registry import Probes

    def milliseconds(function):
        start = time.monotonic()
        function()
        return 1000 * (time.monotonic() - start)

    def all_of_them():
        for probe in Probes().before_files():
            if not probe.check():
                probe.capture()

    with tempfile.TemporaryDirectory(dir="/var/lib") as empty:
        cold = milliseconds(Etc(state=empty).capture)
    all_of_them()
    transaction = Transaction()
    transaction.rollback()
    each = {probe.name: milliseconds(probe.capture) for probe in Probes().before_files() if not probe.check()}
    return {"together": milliseconds(all_of_them), "etc, never seen before": cold, "begin": 1000 * transaction.seconds, **each}


WORK = {"chmod": chmod, "rm": rm, "dpkg": dpkg, "sqlite": sqlite, "rollback": rollback, "probes": probes}

if __name__ == "__main__":
    for _round in range(int(sys.argv[2])):
        print(json.dumps({key: round(value, 3) for key, value in WORK[sys.argv[1]]().items()}), flush=True)
