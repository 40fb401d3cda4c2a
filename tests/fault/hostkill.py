# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill points on real hosts: transactions of package managers, users, units and files, struck at a random moment, and taken back.

    python tests/fault/hostkill.py [--lab NAME] [--hosts N] [--minutes M] [--count N] [--only SCENARIO,...] [--seed N]

Victims: the agent; the step's processes; both and the acidctl that waits for them; the whole host, which boots again (`durability:
power`, since with `process` no undo claims to be exact after that). A phase (begin, step, commit, rollback) is drawn first, then a moment
in it, so that short ones have their turn. Whatever was struck, the transaction is then rolled back, a committed one too, and the lab's
oracle compares the whole host with what it was. One line of JSON for each trial that went wrong, and a last one with the counts, which
is added to the results of this engine (report.py). SIGTERM ends it after the trials under way.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(TOP / "tests" / "lab"), str(TOP / ".build" / "collections")]

from acidlab import hosts, lifecycle, registry, ssh
from acidlab.model import Host
from acidlab.oracle.capture import capture
from acidlab.oracle.compare import compare
from acidlab.oracle.model import State
from programmes import Result, record

UNIT = r"printf '[Service]\nExecStart=/bin/sleep {}\n[Install]\nWantedBy=multi-user.target\n'"
#: done once, before the first transaction
PREPARED = r"""
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update; apt-get -y -qq install acid-demo=1.0 acid-dep=1.0 > /dev/null
echo 'edited = by hand' >> /etc/acid-demo/demo.conf
pacman -Sy --noconfirm --quiet pac-extra > /dev/null
useradd -m -u 1602 old; groupadd -g 1700 oldgroup; usermod -aG oldgroup old; echo 'old:secret' | chpasswd
mkdir -p /srv/tree; for n in $(seq 30); do mkdir -p /srv/tree/$n; seq 400 > /srv/tree/$n/data; ln /srv/tree/$n/data /srv/tree/$n/link; done
setfacl -m u:old:rw /srv/tree/1/data; chattr +i /srv/tree/2/data; setcap cap_net_raw=ep /srv/tree/3/data
"""
PREPARED += f"{UNIT.format(5001)} > /etc/systemd/system/old.service; systemctl daemon-reload; systemctl enable -q --now old"

APT = "export DEBIAN_FRONTEND=noninteractive; apt-get -y -qq -o Dpkg::Options::=--force-confold"
SCENARIOS = {
    "apt installs": (f"{APT} install acid-svc acid-cap acid-setuid acid-divert acid-alt-a", "echo more >> /etc/acid-demo/demo.conf"),
    "apt upgrades": (f"{APT} install acid-demo acid-dep", "apt-mark hold acid-demo"),
    "apt purges": (f"{APT} purge acid-demo", f"{APT} autoremove"),
    "apt fails": (f"{APT} install acid-broken || true", "dpkg --configure -a || true"),
    "pacman installs": ("pacman -S --noconfirm pac-demo", "echo 'edited = yes' >> /etc/pac-demo.conf"),
    "pacman removes": ("pacman -R --noconfirm pac-extra",),
    "users": ("useradd -m -G oldgroup fresh; echo fresh:new | chpasswd", "userdel -r old", "groupadd later; gpasswd -a fresh later"),
    "units": (
        f"{UNIT.format(5002)} > /etc/systemd/system/fresh.service; systemctl daemon-reload; systemctl enable --now fresh",
        "sed -i s/5001/5003/ /etc/systemd/system/old.service; systemctl daemon-reload; systemctl restart old",
        "systemctl mask --now cron.service",
    ),
    "files": (
        "chattr -i /srv/tree/2/data; for n in $(seq 15); do sed -i s/7/x/ /srv/tree/$n/data; done; chmod -R o-r /srv/tree",
        "rm -rf /srv/tree/2[0-9]; mv /srv/tree/1 /srv/tree/one; cp -a /srv/tree/3 /srv/tree/copy; setfacl -b /srv/tree/one/data",
    ),
    "run-time state": (
        "hostname struck; sysctl -qw net.ipv4.tcp_keepalive_time=7000; ip addr add 192.0.2.9/32 dev lo",
        "nft add table inet struck; mkdir /srv/mounted; mount -t tmpfs none /srv/mounted; echo x > /srv/mounted/x",
    ),
}
PHASES = {"rollback": ("begin", "step", "step", "rollback"), "commit": ("begin", "step", "commit", "rollback")}
VICTIMS = ("agent", "agent", "step", "all", "host")


class Struck:
    """One host, trial after trial: what an undo leaves is what the next one starts from."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._program = (HERE / "inhost_kill.py").read_text()
        self._usual: dict[tuple[str, str, str], dict[str, float]] = {}
        self.before: State = {}

    def prepare(self) -> None:
        if not self.host.snapshot("struck").exists():
            self._sh(PREPARED)
            self._install()
            hosts.snapshot(self.host, "struck")
        self.afresh()

    def afresh(self) -> None:
        self.host = lifecycle.wait([hosts.restore(self.host, "struck")])[0]
        self._drive("files", "rollback", "process", "none", "step", 0.0)  # the engine has been here
        self.before = capture(self.host)

    def trial(self, chosen: random.Random, scenario: str) -> tuple[bool, str, list[str]]:
        """Whether somebody was struck, where, and what is wrong."""
        end, victim = chosen.choice(("rollback", "commit")), chosen.choice(VICTIMS)
        durability = "power" if victim == "host" else "process"
        usual = self._usual.get((scenario, end, durability))
        if usual is None:
            done = self._drive(scenario, end, durability, "none", "step", 0.0)
            problems = self._judge(done)
            if problems:
                return False, "", [f"{scenario} goes wrong by itself", *problems]
            usual = self._usual[scenario, end, durability] = done["seconds"]
        phase = chosen.choice(PHASES[end])
        after = chosen.uniform(0, usual[phase])
        where = f"{scenario}, {end}: {victim} {after:.3f} s into {phase}"
        if victim == "host":
            done = self._host_dies(scenario, end, sum(usual[name] for name in self._until(usual, phase)) + after)
        else:
            done = self._drive(scenario, end, durability, victim, phase, after)
        return done["struck"], where, self._judge(done)

    @staticmethod
    def _until(usual: dict[str, float], phase: str) -> list[str]:
        names = list(usual)
        return names[: names.index(phase)]

    def _judge(self, done: dict[str, Any]) -> list[str]:
        across, now = bool(done.get("booted")), capture(self.host)
        found = [str(difference) for difference in compare(self.before, now, across_boot=across)]
        if done["state"] not in ("ABORTED", "") or found:
            found = [f"state {done['state']!r}", *done["told"], *found]
        if across:
            self.before = now
        return found

    def _host_dies(self, scenario: str, end: str, after: float) -> dict[str, Any]:
        drive = threading.Thread(target=self._drive, args=(scenario, end, "power", "none", "step", 0.0), kwargs={"dies": True})
        drive.start()
        drive.join(after + 0.1)  # what it takes to start its Python
        struck = drive.is_alive()
        hosts.kill(self.host)
        drive.join()
        self.host = lifecycle.wait([hosts.start(registry.find_host(self.host.lab, self.host.name))])[0]
        done = self._drive("files", "settle", "power", "none", "step", 0.0)
        return {**done, "struck": struck, "booted": True}

    def _drive(self, scenario: str, end: str, durability: str, victim: str, phase: str, after: float, *, dies: bool = False) -> Any:
        plan = {"steps": SCENARIOS[scenario], "end": end, "victim": victim, "phase": phase, "after": after}
        plan["options"] = {"durability": durability}
        done = ssh.inside(self.host, ["python3", "-I", "-", json.dumps(plan)], stdin=self._program.encode())
        if dies:
            return {}
        if done.returncode:
            raise RuntimeError(f"{self.host.name}: {done.stderr.decode(errors='replace')[-800:]}")
        return json.loads(done.stdout)

    def _install(self) -> None:
        from ansible_collections.acid.host.plugins.plugin_utils import delivery

        engine = delivery.engine()
        for name, data in (("engine", engine.archive), ("installer", delivery.INSTALLER.read_bytes())):
            ssh.inside(self.host, ["sh", "-c", f"cat > /tmp/{name}"], stdin=data)
        arguments = f"/tmp/engine {engine.hash} /usr/local/lib/acid /usr/local/sbin/acidctl"
        self._sh(f"python3 -IS /tmp/installer {arguments}; rm /tmp/engine /tmp/installer")

    def _sh(self, script: str) -> None:
        done = ssh.inside(self.host, ["bash", "-s"], stdin=script.encode())
        if done.returncode:
            raise RuntimeError(f"{self.host.name}: {done.stderr.decode(errors='replace')[-800:]}")


class Sweep:
    def __init__(self, first: int, scenarios: list[str], *, count: int, seconds: float) -> None:
        self._first, self._scenarios, self._count = first, scenarios, count
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._next = 0
        self.total: collections.Counter[str] = collections.Counter()
        self.at: collections.Counter[str] = collections.Counter()
        self.scenarios: collections.Counter[str] = collections.Counter()
        self.wrong: list[dict[str, Any]] = []
        self.died = ""

    def host_runs(self, host: Host) -> None:
        try:
            struck = Struck(host)
            struck.prepare()
            while (number := self._draw()) is not None:
                self._one(struck, self._first + number, self._scenarios[number % len(self._scenarios)])
        except Exception as error:
            self.died = f"{host.name}: {error!r}"

    def stop(self) -> None:
        """After the trials that are under way: what was shown is kept."""
        self._end = 0.0

    def _draw(self) -> int | None:
        with self._lock:
            if self._next >= self._count or time.monotonic() > self._end or self.died:
                return None
            self._next += 1
            return self._next - 1

    def _one(self, host: Struck, seed: int, scenario: str) -> None:
        met, where, problems = host.trial(random.Random(seed), scenario)
        with self._lock:
            self.total.update({"trials": 1, "points": int(met), "wrong": int(bool(problems))})
            if met:
                self.at[where.split(": ")[1].split()[0]] += 1
                self.scenarios[scenario] += 1
            if problems:
                self.wrong.append({"seed": seed, "where": where, "problems": problems[:8]})
                print(json.dumps(self.wrong[-1]), flush=True)
        if problems:
            host.afresh()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", default="hostkill")
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--count", type=int, default=1 << 30)
    parser.add_argument("--only", default="")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    first = arguments.seed or random.SystemRandom().randrange(1, 1 << 28)
    scenarios = [name for name in SCENARIOS if not arguments.only or name in arguments.only.split(",")]
    start = time.monotonic()
    try:
        lab_hosts = lifecycle.up(arguments.lab, count=arguments.hosts, fs="btrfs", prefix="k", image_name="base")
        sweep = Sweep(first, scenarios, count=arguments.count, seconds=arguments.minutes * 60)
        signal.signal(signal.SIGTERM, lambda _number, _frame: sweep.stop())
        threads = [threading.Thread(target=sweep.host_runs, args=(host,)) for host in lab_hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        with contextlib.suppress(Exception):
            lifecycle.down(arguments.lab)
    counts = {"programme": "hostkill", "fs": "btrfs", "seed": first, **sweep.total, "at": sweep.at, "scenarios": sweep.scenarios}
    counts["seconds"] = round(time.monotonic() - start, 1)
    print(json.dumps({**counts, "died": sweep.died}))
    record(Result("hostkill", "btrfs", sweep.wrong, counts, sweep.died))
    return 1 if sweep.wrong or sweep.died else 0


if __name__ == "__main__":
    sys.exit(main())
