# SPDX-License-Identifier: GPL-3.0-or-later
"""An administrator at work on a host, in a login session of his own, while a play runs there that fails or commits.

    python tests/fault/administrator.py --lab NAME --hosts 2 --count 25 [--seed N]       trials of each host

What he did is his: it is there after the play's undo, and nobody is blamed for what he did not do. When he has taken it back himself, the
host is as before the play: nothing of the play's is left. The plays ask no daemon, some or only daemons (PID 1, hostnamed, timedated)
for what they do. One line of JSON for each trial; the last one has the counts, which are added to the results of this engine (report.py).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from onlab import each, hosts_of, start_play  # first: it finds the lab

# isort: split
from acidlab import ssh
from acidlab.model import Host
from acidlab.oracle.capture import capture
from acidlab.oracle.compare import compare
from programmes import Result, record


class Act(NamedTuple):
    """Shell commands: what he does, how it is seen to be there, how he takes it back. N is a number of the trial. `trail`: a regular
    expression of the paths that are not quite as before when he has taken it back, besides the times of directories."""

    do: str
    there: str
    back: str
    trail: str = "$^"


UNIT = "[Service]\\nExecStart=/bin/sleep infinity\\n"
ACTS = {
    "appends": Act("echo adminN >> /etc/motd", "grep -qx adminN /etc/motd", "sed -i /adminN/d /etc/motd", "/etc/motd"),
    "sed -i": Act("sed -i '$a 192.0.2.9 adminN' /etc/hosts", "grep -q adminN /etc/hosts", "sed -i /adminN/d /etc/hosts", "/etc/hosts"),
    "new file": Act("echo '# adminN' > /etc/cron.d/adminN", "grep -q adminN /etc/cron.d/adminN", "rm /etc/cron.d/adminN"),
    "new directory": Act("mkdir /etc/adminN.d && echo k > /etc/adminN.d/k", "grep -q k /etc/adminN.d/k", "rm -r /etc/adminN.d"),
    "state of a daemon": Act("mkdir /var/lib/adminN && echo k > /var/lib/adminN/k", "grep -q k /var/lib/adminN/k", "rm -r /var/lib/adminN"),
    "crontab": Act("echo '0 0 31 2 * adminN' | crontab -", "crontab -l | grep -q adminN", "crontab -r", "/var/spool/cron"),
    "user": Act("useradd -M admN", "getent passwd admN", "userdel admN", "/etc/(passwd|group|g?shadow|sub[ug]id)-?"),
    "package": Act(
        "apt-get install -qq -y acid-dep >/dev/null",
        "dpkg -s acid-dep",
        "apt-get purge -qq -y acid-dep >/dev/null",
        "/var/(lib|cache|log)/",
    ),
    "stops a unit": Act("systemctl stop cron", "! systemctl -q is-active cron", "systemctl start cron"),
    "starts a unit": Act(
        f"printf '{UNIT}' > /etc/systemd/system/adminN.service; systemctl daemon-reload; systemctl start adminN",
        "systemctl -q is-active adminN",
        "systemctl stop adminN; rm /etc/systemd/system/adminN.service; systemctl daemon-reload",
    ),
    "masks a unit": Act("systemctl -q mask atd", "test $(systemctl is-enabled atd) = masked", "systemctl -q unmask atd"),
    "enables a timer": Act(
        "systemctl -q enable logrotate.timer", "systemctl -q is-enabled logrotate.timer", "systemctl -q disable logrotate.timer"
    ),
    "mounts": Act(
        "mkdir /mnt/adminN && mount -t tmpfs none /mnt/adminN && echo k > /mnt/adminN/k",
        "grep -q k /mnt/adminN/k",
        "umount /mnt/adminN; rmdir /mnt/adminN",
    ),
    "address": Act("ip address add 198.51.100.N/32 dev lo", "ip address | grep -q 198.51.100.N/", "ip address del 198.51.100.N/32 dev lo"),
    "setting": Act("sysctl -qw net.ipv4.ip_forward=1", "grep -q 1 /proc/sys/net/ipv4/ip_forward", "sysctl -qw net.ipv4.ip_forward=0"),
}

FILES = """
    - copy: {content: "one\\n", dest: /etc/play.conf, mode: "0644"}
    - pause: {seconds: 1}
    - lineinfile: {path: /etc/services, line: "play 4711/tcp"}
    - shell: mkdir /srv/play && for n in $(seq 100); do echo $n > /srv/play/$n; done
    - pause: {seconds: 1}
    - lineinfile: {path: /etc/play.conf, line: two}
"""
DAEMONS = """
    - copy:
        content: "[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n"
        dest: /etc/systemd/system/play.service
    - systemd_service: {name: play.service, enabled: true, state: started}
    - pause: {seconds: 1}
    - command: hostnamectl set-location play
    - command: timedatectl set-timezone Europe/Zurich
    - pause: {seconds: 1}
    - systemd_service: {name: play.service, state: restarted}
"""
PLAYS = {"none": FILES, "some": FILES + DAEMONS, "all": DAEMONS}


class Trial:
    """One play on one host. `problems` has a sentence for each thing that went wrong."""

    def __init__(self, host: Host, seed: int, folder: Path) -> None:
        chosen = random.Random(seed)
        self._host, self.seed, self._folder = host, seed, folder
        self.kind, self.fails = chosen.choice(sorted(PLAYS)), seed % 2 == 0
        self.acts = chosen.sample(sorted(ACTS), chosen.choice((1, 2, 3)))
        length = {"none": 6.0, "some": 12.0, "all": 7.0}[self.kind]
        self._when = sorted(chosen.uniform(0.5, length) for _act in self.acts)
        self._number = str(seed % 199 + 1)
        self.problems: list[str] = []
        self._done: list[str] = []

    def run(self) -> None:
        before = capture(self._host)
        play = self._play()
        begun = time.monotonic()
        self._wait_for_begin(play)
        for act, when in zip(self.acts, self._when):
            time.sleep(max(0.0, begun + when - time.monotonic()))
            if play.poll() is None:
                self._admin(ACTS[act].do)
                self._done.append(act)
        play.wait(timeout=300)
        self._judge_state("ABORTED" if self.fails else "COMMITTED")
        self._judge_his()
        if not self.fails:
            self._inside(f"acidctl rollback {self._newest()['tx']}")
            self._judge_state("ABORTED")
            self._judge_his()
        for act in reversed(self._done):
            self._admin(ACTS[act].back)
        found = [str(difference) for difference in compare(before, capture(self._host))]
        trails = [re.compile(ACTS[act].trail) for act in self._done]
        left = [line for line in found if not _is_time(line) and not any(trail.search(line) for trail in trails)]
        self.problems += [f"left: {line}" for line in left[:8]]
        for act in self._done if self.problems else ():  # what the undo has taken back is not to spoil the next trial
            self._admin(ACTS[act].back)
        if self.problems:
            self.problems.append(self._output.read_text()[-1200:])
            self._inside(f"acidctl rollback --on-drift force {self._newest()['tx']}; acidctl resolve {self._newest()['tx']}")

    def _judge_state(self, wanted: str) -> None:
        shown = json.loads(self._inside(f"acidctl show {self._newest()['tx']} --json") or "{}")
        if shown.get("state") != wanted:
            self.problems.append(f"{shown.get('state')} instead of {wanted}: {shown.get('differs')}")
        said = [line for line in json.dumps([shown.get(key) for key in ("told", "drift", "held", "moot")]).split('"') if "/" in line]
        self.problems += [f"says of what is none of his: {line}" for line in said if not _his(line)][:4]

    def _judge_his(self) -> None:
        for act in self._done:
            if self._admin(ACTS[act].there):
                self.problems.append(f"undone: {act}")

    # -- the host --------------------------------------------------------------------------------------------------------

    def _admin(self, command: str) -> int:
        words = ["sh", "-c", "'" + re.sub("(adm|admin|100.)N", lambda found: found[1] + self._number, command).replace("'", "'\\''") + "'"]
        return subprocess.run(ssh.argv(self._host, [*words]), stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode

    def _inside(self, command: str) -> str:
        return ssh.inside(self._host, ["sh", "-c", command]).stdout.decode()

    def _newest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._inside("acidctl list --json"))["transactions"][0]
        return found

    def _wait_for_begin(self, play: subprocess.Popen[str]) -> None:
        while play.poll() is None and '"open": null' in (self._inside("acidctl info --json") or '"open": null'):
            time.sleep(0.1)

    def _play(self) -> subprocess.Popen[str]:
        last = "    - fail: {msg: forced}\n" if self.fails else ""
        self._output = self._folder / "output"
        return start_play(self._host, self._folder, "- hosts: all\n  gather_facts: false\n  tasks:" + PLAYS[self.kind] + last)


def _is_time(line: str) -> bool:
    """Of a directory: that of a file of the play's would come with its contents."""
    return re.fullmatch(r"changed path \S+: mtime \d+ -> \d+", line) is not None


def _his(line: str) -> bool:
    return "adm" in line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", default="administrator")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--count", type=int, default=3, help="trials of each host")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    first, start, lock = arguments.seed or random.SystemRandom().randrange(1, 1 << 30), time.monotonic(), threading.Lock()
    done: list[Trial] = []

    def host_runs(number: int, host: Host, folder: Path) -> None:
        for turn in range(arguments.count):
            trial = Trial(host, first + number * arguments.count + turn, folder)
            try:
                trial.run()
            except Exception as error:
                trial.problems.append(repr(error))
            with lock:
                done.append(trial)
                told = {"host": host.name, "seed": trial.seed, "play": trial.kind, "fails": trial.fails, "acts": trial.acts}
                print(json.dumps({**told, "problems": trial.problems}), flush=True)

    each(hosts_of(arguments.lab, arguments.hosts), host_runs)
    wrong = [{"seed": trial.seed, "acts": trial.acts, "problems": trial.problems} for trial in done if trial.problems]
    counts = {"seed": first, "points": len(done), "wrong": len(wrong), "seconds": round(time.monotonic() - start, 1)}
    print(json.dumps(counts))
    record(Result("administrator", "btrfs", wrong, counts, ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
