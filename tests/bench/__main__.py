# SPDX-License-Identifier: GPL-3.0-or-later
"""All benchmarks, in pairs and repeated, as a table into docs/benchmarks.md.

    python tests/bench [--rounds 7] [--only NAME]

Each figure is the median of the ratios of its rounds: plain and traced take turns within a round, so that a slower moment of the
machine meets both.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
LAB = TOP / "tests" / "lab" / "lab"
COLLECTIONS = TOP / ".build" / "collections"
ANSIBLE = TOP / ".build" / "venv" / "bin" / "ansible-playbook"
ENVIRONMENT = {**os.environ, "ACID_LAB": os.environ.get("ACID_LAB", "bench")}
HOSTS = {"ext4": "e1", "btrfs": "b1"}

# (title, work on the host, file system, numerator, denominator, wanted)
WORK = (
    ("dpkg: a package of 2,000 files, traced / plain", "dpkg", "ext4", "traced", "plain", "1.5"),
    ("the same, traced / under strace", "dpkg", "ext4", "traced", "strace", "1"),
    ("chmod -R, 40,000 files, traced / plain", "chmod", "ext4", "traced", "plain", "6"),
    ("rm -rf, 40,000 files, traced / plain", "rm", "ext4", "traced", "plain", "5"),
    ("sqlite, 3,000 commits, traced / plain", "sqlite", "ext4", "traced", "plain", ""),
    ("rollback of a package of 20,000 files / dpkg --purge, ext4", "rollback", "ext4", "rollback", "purge", "1"),
    ("rollback of a package of 20,000 files / dpkg --purge, btrfs", "rollback", "btrfs", "rollback", "purge", "1"),
)


def lab(*words: str, text: str | None = None) -> str:
    done = subprocess.run([str(LAB), *words], env=ENVIRONMENT, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"lab {' '.join(words)[:200]}: {done.stdout[-500:]}{done.stderr[-1500:]}")
    return done.stdout


def boot() -> None:
    lab("build")
    lab("up", "1", "--fs", "ext4", "--name", "e")
    lab("up", "1", "--name", "b")
    for host in HOSTS.values():
        lab("ssh", host, "cat > /root/on_host.py", text=(TOP / "tests" / "bench" / "on_host.py").read_text())


class Plays:
    """The play of 20 tasks, with and without the callback."""

    def __init__(self, folder: Path) -> None:
        self.inventory = folder / "inventory.json"
        self.inventory.write_text(lab("inventory"))

    def run(self, host: str, *, with_callback: bool, pipelining: bool) -> tuple[float, float]:
        """(seconds of the body, seconds of begin and commit)."""
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            **({"ANSIBLE_CALLBACKS_ENABLED": "acid.host.transaction"} if with_callback else {}),
            "ANSIBLE_PIPELINING": str(pipelining),
            "ANSIBLE_HOST_KEY_CHECKING": "False",
        }
        play = TOP / "tests" / "bench" / "twenty.yml"
        start = time.monotonic()
        done = subprocess.run(
            [ANSIBLE, "-i", self.inventory, "--limit", host, play], env=environment, capture_output=True, text=True, check=False
        )
        whole = time.monotonic() - start
        if done.returncode:
            raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
        body = body_seconds(done.stdout)
        return body, whole - body


def body_seconds(output: str) -> float:
    """From the first task's start to the last task's end, as the play's own tasks wrote it down."""
    first, last = re.search(r"BODY-STARTS ([\d.]+)", output), re.search(r"BODY-ENDS ([\d.]+)", output)
    if first is None or last is None:
        raise SystemExit("the play did not say when its body began and ended:\n" + output[-2000:])
    return float(last[1]) - float(first[1])


def plays(rounds: int, folder: Path) -> list[str]:
    runner = Plays(folder)
    lines = []
    for pipelining in (True, False):
        ratios, plain, traced, around = [], [], [], []
        runner.run("e1", with_callback=True, pipelining=pipelining)
        for turn in range(rounds):
            order = (False, True) if turn % 2 else (True, False)
            seconds = {with_callback: runner.run("e1", with_callback=with_callback, pipelining=pipelining) for with_callback in order}
            ratios.append(seconds[True][0] / seconds[False][0])
            plain.append(seconds[False][0])
            traced.append(seconds[True][0])
            around.append(seconds[True][1] - seconds[False][1])
        title = "body of a play of 20 tasks over ssh, pipelining %s, with / without" % ("on" if pipelining else "off")
        lines.append(row(title, ratios, {"plain": plain, "traced": traced}, "1.15"))
        lines.append(row("begin and commit of that play together, seconds", around, {}, ""))
    return lines


def row(title: str, ratios: list[float], seconds: dict[str, list[float]], wanted: str) -> str:
    shown = ", ".join(f"{name} {statistics.median(values):.2f} s" for name, values in seconds.items())
    ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    line = f"| {title} | {ratio} | {wanted and 'at most ' + wanted} | {shown} | {len(ratios)} |"
    print(line, flush=True)
    return line


def on_host(rounds: int, only: str) -> list[str]:
    lines = []
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    for title, work, fs, numerator, denominator, wanted in WORK:
        if only and only != work:
            continue
        if (work, fs) not in measured:
            output = lab("ssh", HOSTS[fs], f"python3 /root/on_host.py {work} {rounds}")
            measured[work, fs] = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        results = measured[work, fs]
        ratios = [result[numerator] / result[denominator] for result in results]
        seconds = {name: [result[name] for result in results] for name in (denominator, numerator)}
        lines.append(row(title, ratios, seconds, wanted))
    return lines


# (title, key of on_host.py's answer, wanted)
PROBES = (
    ("all probes together, as at begin", "together", "300 ms"),
    ("the probe etc, nothing changed since the last transaction", "etc", "150 ms"),
    ("the probe etc on a host that it has never seen", "etc, never seen before", ""),
    ("begin, on the host, probes included", "begin", ""),
)


def probes(rounds: int) -> list[str]:
    output = lab("ssh", HOSTS["ext4"], f"python3 /root/on_host.py probes {rounds}")
    results = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    lines = []
    for title, key, wanted in PROBES:
        found = [result[key] for result in results]
        shown = f"**{statistics.median(found):.0f} ms** ({min(found):.0f} to {max(found):.0f})"
        lines.append(f"| {title} | {shown} | {wanted and 'below ' + wanted} | | {len(found)} |")
    rest = sorted(set(results[0]) - {key for _title, key, _wanted in PROBES})
    each = ", ".join(f"{name} {statistics.median(result[name] for result in results):.1f}" for name in rest)
    lines.append(f"| each other probe, ms | | | {each} | {len(results)} |")
    print("\n".join(lines), flush=True)
    return lines


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "unknown"
    )
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) >> 20
    return (
        f"{os.cpu_count()} cores ({model}), {memory} GiB, Linux {platform.release()}, Python {platform.python_version()} on the controller"
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--play-rounds", type=int, default=15)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    boot()
    try:
        with tempfile.TemporaryDirectory() as folder:
            warm = Plays(Path(folder))
            for host in HOSTS.values():
                warm.run(host, with_callback=True, pipelining=True)
            lines = [] if arguments.only in ("plays", "probes") else on_host(arguments.rounds, arguments.only)
            if arguments.only in ("", "probes"):
                lines += probes(arguments.rounds)
            if arguments.only in ("", "plays"):
                lines += plays(arguments.play_rounds, Path(folder))
    finally:
        lab("down")
    if not arguments.only:
        write(lines)
    return 0


def write(lines: list[str]) -> None:
    """What a person has written below the table stays."""
    page = TOP / "docs" / "benchmarks.md"
    _table, mark, notes = page.read_text().partition("\n## ")
    page.write_text(
        "# Benchmarks\n\n"
        f"Made by `make bench` on {datetime.date.today().isoformat()}, on a machine with {machine()};\n"
        "hosts are containers on loop images. Plain and traced take turns; a ratio is the median of its rounds (least to greatest).\n\n"
        "| what | ratio | wanted | medians | rounds |\n|---|---|---|---|---|\n" + "\n".join(lines) + "\n" + mark + notes
    )


if __name__ == "__main__":
    sys.exit(main())
