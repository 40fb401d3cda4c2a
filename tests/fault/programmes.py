# SPDX-License-Identifier: GPL-3.0-or-later
"""The programmes of the fault programme, and one run of one of them: a process of its own with the library preloaded (sweep.py).

runner = Runner(folder)
result = runner.run("kill", "ext4", seed=1, seconds=60)
result.counts["points"], result.counts["wrong"], result.wrong
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import faults

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / ".build" / "fault"
ENGINE = TOP / "plugins" / "module_utils" / "engine"
# What the engine meets on a host; and the preloaded library must not meet another C library than its own.
PYTHON = "/usr/bin/python3"


class Programme(NamedTuple):
    """`share` of the budget; `figure`: how many points it shall have had; `unit`: what a point is."""

    name: str
    title: str
    file_systems: tuple[str, ...]
    share: float
    figure: int
    unit: str


PROGRAMMES = (
    Programme("kill", "Kill points, in small hosts", ("ext4", "xfs", "btrfs"), 0.25, 4000, "SIGKILL to all, or to the agent"),
    Programme("recovery", "Crashes in the recovery, to depth 3", ("ext4", "xfs"), 0.12, 1000, "SIGKILL"),
    Programme("cut", "Power cuts, `durability: power`", ("ext4", "xfs"), 0.22, 2000, "power cut"),
    Programme("error", "Errors of the engine's system calls, once or sticky", ("ext4", "xfs"), 0.19, 6000, "error"),
    Programme("corrupt", "Store corruption", ("ext4",), 0.05, 10000, "flip or cut"),
    Programme("random", "Random operation sequences", ("ext4", "xfs", "btrfs"), 0.07, 10000, "transaction"),
    Programme("order", "Order of writes, `durability: power`", ("ext4", "xfs"), 0.01, 1000, "call let run"),
    Programme("full", "Full file systems", ("ext4", "xfs", "btrfs"), 0.03, 300, "undo on a file system that a step filled"),
    Programme("inodes", "No free inodes", ("ext4",), 0.01, 100, "undo on a file system of which a step took all inodes"),
    Programme("process", "Power cuts, `durability: process`, measured", ("ext4", "xfs"), 0.03, 200, "power cut"),
    Programme("alone", "The agent dies alone in an undo, its caller gone", ("ext4", "xfs", "btrfs"), 0.08, 2000, "death of the agent"),
    Programme("others", "Somebody else's change before the undo", ("ext4",), 0.01, 100, "change"),
    Programme("company", "Transactions in company", ("ext4", "ext4-d", "xfs", "btrfs", "tmpfs"), 0.2, 20000, "transaction"),
)
# On hosts of the lab, by programs of their own: hostkill.py and deadman.py.
HOST_PROGRAMMES = (
    Programme("hostkill", "Kill points, on real hosts with systemd", ("btrfs",), 0, 1000, "SIGKILL"),
    Programme("deadman", "Self-rollback by deadline + 5 s", ("btrfs",), 0, 100, "controller dead, stopped, cut off; sshd stopped, broken"),
    Programme("reboot", "The same across a reboot, and planned reboots", ("btrfs",), 0, 20, "reboot"),
    Programme("administrator", "An administrator at work, on real hosts", ("btrfs",), 0, 100, "play that fails or commits"),
    Programme("healthy", "Healthy transactions that must not end by themselves", ("btrfs",), 0, 1000, "transaction"),
)


class Result(NamedTuple):
    """`wrong`: what sweep.py said of each trial that went wrong; `counts`: its last line. `died`: how it ended when it did not finish."""

    programme: str
    fs: str
    wrong: list[dict[str, Any]]
    counts: dict[str, Any]
    died: str

    @property
    def good(self) -> bool:
        return not self.wrong and not self.died


def engine_hash(engine: Path = ENGINE) -> str:
    found = hashlib.sha256()
    for path in sorted(engine.rglob("*.py")):
        found.update(path.relative_to(engine).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def record(result: Result, engine: str = "") -> None:
    """Of the engine as it is, or of another one by its hash."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / f"{engine or engine_hash()}.jsonl", "a", encoding="utf-8") as f:
        f.write(json.dumps(result._asdict()) + "\n")


class Runner:
    """`folder` is the runner's own; hosts in it live in memory and end with their process. `change`: done to a copy of the engine first.
    `apart`: Ctrl-C does not reach what runs."""

    def __init__(self, folder: Path, change: Callable[[Path], None] | None = None, *, apart: bool = False) -> None:
        self._folder, self._group = folder, 0 if apart else None
        folder.mkdir(parents=True, exist_ok=True)
        self._library = faults.build(folder)
        shutil.copytree(ENGINE, folder / "copy" / "engine", ignore=shutil.ignore_patterns("__pycache__"))
        if change is not None:
            change(folder / "copy" / "engine")

    @property
    def copy(self) -> Path:
        """The folder that holds `engine`."""
        return self._folder / "copy"

    def run(self, programme: str, fs: str, *, seed: int, seconds: float, count: int = 0, stop: bool = False) -> Result:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            command = [PYTHON, "-I", str(Path(__file__).with_name("sweep.py")), "--engine", str(self.copy), "--folder", f"{folder}/host"]
            command += ["--programme", programme, "--fs", fs, "--seed", str(seed), "--seconds", str(seconds)]
            command += ["--count", str(count)] if count else []
            command += ["--stop"] if stop else []
            environment = {"LD_PRELOAD": str(self._library), "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
            limit = seconds * 2 + 300
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=limit, process_group=self._group, check=False
            )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        if lines and "trials" in lines[-1]:
            return Result(programme, fs, lines[:-1], lines[-1], "")
        died = done.stderr[-3000:] or f"code {done.returncode}"
        return Result(programme, fs, lines, {"programme": programme, "fs": fs, "seed": seed}, died)
