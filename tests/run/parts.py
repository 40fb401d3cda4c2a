# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the parts of the test suite and print how long each took.

    parts.py [--only NAME[,NAME]] GROUP...        groups: lint unit lab host fault molecule exact bench

A part is a command. It passes when it exits with 0 within its limit and, if it is a pytest run, when nothing was skipped:
a test that did not run has shown nothing. Two parts run at a time; their output is kept in .build/reports and shown when they fail.
The last line is a count that CI reads.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / ".build"
BIN = BUILD / "venv" / "bin"
REPORTS = BUILD / "reports"
TREE = BUILD / "tree" / "ansible_collections" / "acid" / "host"
RUNNING: list[subprocess.Popen[bytes]] = []
PLUGINS = "ansible_collections.acid.host.plugins"


@dataclass(frozen=True)
class Part:
    name: str
    argv: tuple[str, ...]
    limit: int
    """Seconds; a part that takes longer is ended and has failed."""
    cwd: Path = TOP
    junit: bool = False


@dataclass(frozen=True)
class Result:
    part: Part
    seconds: float
    passed: int
    failed: int
    remarks: tuple[str, ...] = ()


def _pytest(name: str, limit: int, *arguments: str) -> Part:
    report = str(REPORTS / f"{name}.xml")
    return Part(name, (str(BIN / "pytest"), "--color=no", "--durations=8", f"--junit-xml={report}", *arguments), limit, junit=True)


LINT = (
    Part("sanity", (str(TOP / "tests/run/sanity"),), 600, TREE),
    Part("galaxy", (str(TOP / "tests/run/galaxy"),), 300, TREE),
    Part("mypy", (str(BIN / "mypy"), "--strict", "-p", f"{PLUGINS}.module_utils.engine", "-p", f"{PLUGINS}.plugin_utils"), 300),
    Part("docs", (str(BIN / "antsibull-docs"), "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", "."), 120, TREE),
    Part("ansible-lint", (str(BIN / "ansible-lint"), "--strict", "--nocolor"), 180, TREE),
    Part("changelog", (str(BIN / "antsibull-changelog"), "lint"), 60, TREE),
    Part("yamllint", (str(BIN / "yamllint"), "--strict", "."), 60, TREE),
    Part("ruff", (str(BIN / "ruff"), "check", "."), 60),
)


def _host_tests() -> list[str]:
    """A part for each file, so that hosts boot in one while another's play runs; the slowest first (seconds on 2 cores)."""
    slow = {"exact": 260, "agent": 120, "callback": 105, "races": 100, "callback_signals": 80, "units": 40}
    slow.update({"jobs": 60, "probes": 65, "probe_scenarios": 55, "runner": 40, "units": 35})
    names = [path.stem.removeprefix("test_") for path in sorted((TOP / "tests" / "host").glob("test_*.py"))]
    return sorted(names, key=lambda name: -slow.get(name, 0))


GROUPS = {
    "lint": LINT,
    "unit": (_pytest("unit", 900, "-m", "not exact", "tests/unit"),),
    "lab": (_pytest("lab", 900, "-m", "not exact", "tests/lab"),),
    "host": tuple(_pytest(name, 900, "-m", "not exact", f"tests/host/test_{name}.py") for name in _host_tests()),
    "fault": (_pytest("fault", 360, "-m", "not exact", "tests/fault"),),  # 6 minutes: docs/reliability.md
    "molecule": (Part("molecule", (str(TOP / "tests/run/molecule"),), 900),),
    "exact": (_pytest("exact-unit", 3600, "-m", "exact", "tests/unit"), _pytest("exact", 4 * 3600, "tests/host")),
    "bench": (Part("bench", (str(BIN / "python"), "tests/bench"), 7200),),
}


def _environment() -> dict[str, str]:
    home = BUILD / "home"
    home.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_COLLECTIONS_PATH": str(BUILD / "collections"),
        "ANSIBLE_HOME": str(home / ".ansible"),
        "MYPYPATH": str(BUILD / "collections"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }


def _counts(part: Part, code: int) -> tuple[int, int, tuple[str, ...]]:
    if not part.junit:
        return int(code == 0), int(code != 0), ()
    report = REPORTS / f"{part.name}.xml"
    if not report.exists():
        return 0, 1, ("no report was written: pytest did not get as far as its tests",)
    suites = ET.parse(report).getroot().iter("testsuite")
    passed = failed = 0
    remarks: list[str] = []
    for case in (case for suite in suites for case in suite.iter("testcase")):
        skipped = case.find("skipped")
        name = f"{case.get('classname')}::{case.get('name')}"
        if skipped is not None and skipped.get("type") != "pytest.xfail":
            failed += 1
            remarks.append(f"skipped, so it has shown nothing: {name}: {skipped.get('message')}")
        elif skipped is not None:
            remarks.append(f"known to fail: {name}: {skipped.get('message')}")
        elif case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            remarks.append(f"failed: {name}")
        else:
            passed += 1
    if code != 0 and not failed:
        failed, remarks = 1, [*remarks, f"pytest ended with {code}"]
    if not passed + failed:
        failed, remarks = 1, [*remarks, "no test ran"]
    return passed, failed, tuple(remarks)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The part's own process group only. SIGTERM first: tests take their hosts down."""
    for number, patience in ((signal.SIGINT, 30), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return


def run(part: Part, *, live: bool) -> Result:
    (REPORTS / f"{part.name}.xml").unlink(missing_ok=True)
    log = REPORTS / f"{part.name}.log"
    remarks: tuple[str, ...] = ()
    started = time.monotonic()
    with log.open("wb") as sink:
        output = None if live else sink
        process = subprocess.Popen(
            part.argv, cwd=part.cwd, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        RUNNING.append(process)
        try:
            code = process.wait(part.limit)
        except subprocess.TimeoutExpired:
            _end(process)
            code, remarks = 124, (f"ended after its limit of {part.limit} s",)
        except BaseException:
            _end(process)
            raise
        finally:
            RUNNING.remove(process)
    seconds = time.monotonic() - started
    passed, failed, more = _counts(part, code)
    if code == 124 and not failed:
        failed = 1
    if failed and not live:
        print(f"----- {part.name}\n{log.read_text(errors='replace')[-12000:]}-----")
    print(f"{'FAILED' if failed else 'ok':6} {seconds:7.1f} s  {part.name}", flush=True)
    return Result(part, seconds, passed, failed, remarks + more)


def run_groups(groups: list[str], only: set[str]) -> list[Result]:
    """Two parts at a time: most of them wait for hosts."""
    parts = [part for group in groups for part in GROUPS[group] if not only or part.name in only]
    if any(part.cwd == TREE for part in parts):
        subprocess.run([str(TOP / "tests/run/tree")], check=True, stdout=subprocess.DEVNULL)
    if len(parts) == 1:
        return [run(parts[0], live=True)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            return list(pool.map(lambda part: run(part, live=False), parts))
        except BaseException:  # Ctrl-C, SIGTERM
            pool.shutdown(wait=False, cancel_futures=True)
            for process in RUNNING.copy():
                _end(process)
            raise


def report(results: list[Result], total: float) -> int:
    passed, failed = sum(result.passed for result in results), sum(result.failed for result in results)
    print("\n  seconds  passed  failed  part")
    for result in results:
        print(f"{result.seconds:9.1f}  {result.passed:6}  {result.failed:6}  {result.part.name}")
        for remark in result.remarks:
            print(f"{'':27}{remark}")
    print(f"{total:9.1f}  in all\n\n{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts of the group, by name, with commas")
    parser.add_argument("groups", nargs="+", choices=list(GROUPS))
    arguments = parser.parse_args()
    only = set(filter(None, arguments.only.split(",")))
    REPORTS.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_arguments: sys.exit(143))
    started = time.monotonic()
    results = run_groups(arguments.groups, only)
    if not results:
        parser.error(f"no such part: {arguments.only}")
    return report(results, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
