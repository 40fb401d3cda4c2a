# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenario plays hold what the README's table says of them. Reads the plays; needs no host."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
sys.path.insert(0, str(SCENARIOS))

from scenario import catalog

Task = dict[str, Any]
KEYWORDS = frozenset(
    """
    action any_errors_fatal args async become become_method become_user block always rescue changed_when check_mode collections
    connection debugger delay delegate_facts delegate_to diff environment failed_when ignore_errors ignore_unreachable listen
    local_action loop loop_control module_defaults name no_log notify poll port register remote_user retries roles run_once tags
    throttle timeout until vars when with_items with_fileglob with_sequence
    """.split()  # noqa: SIM905 - forty names with quotes are hard to read
)
NO_MODULES = frozenset(("include_tasks", "import_tasks", "include_role", "import_role", "meta"))
ALL = catalog.load()
IDS = [scenario.name for scenario in ALL]


def play_of(scenario: catalog.Scenario) -> Task:
    (play,) = yaml.safe_load(scenario.path.read_text(encoding="utf-8"))
    return play  # type: ignore[no-any-return]


def module_of(task: Task) -> str:
    names = [key for key in task if key not in KEYWORDS]
    return names[0].rpartition(".")[2] if names else ""


PLAYS = {scenario.name: play_of(scenario) for scenario in ALL}
TASKS = {name: list(catalog.tasks(play)) for name, play in PLAYS.items()}
NEEDS = {scenario.name: scenario for scenario in ALL}


def arguments(task: Task) -> Task:
    found = next((task[key] for key in task if key not in KEYWORDS), None)
    return found if isinstance(found, dict) else {"_raw": str(found or "")}


def line(task: Task) -> str:
    """The command line of a command, shell, raw or script task."""
    found = arguments(task)
    return str(found.get("cmd", found.get("_raw", "")))


def uses(module: str, test: Callable[[Task], bool] = lambda given: True) -> Callable[[str], bool]:
    return lambda name: any(module_of(task) == module and test(arguments(task)) for task in TASKS[name])


def shell(pattern: str) -> Callable[[str], bool]:
    return lambda name: any(module_of(task) in ("shell", "command", "raw") and re.search(pattern, line(task)) for task in TASKS[name])


def task_has(test: Callable[[Task], bool]) -> Callable[[str], bool]:
    return lambda name: any(test(task) for task in TASKS[name])


def play_has(test: Callable[[Task], bool]) -> Callable[[str], bool]:
    return lambda name: test(PLAYS[name])


def argument(option: str) -> Callable[[str], bool]:
    return lambda name: option in NEEDS[name].args


def either(*tests: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda name: any(test(name) for test in tests)


def state(wanted: str) -> Callable[[Task], bool]:
    return lambda given: given.get("state", "present") == wanted


def names_text(given: Task) -> str:
    return str(given.get("name", given.get("pkg", "")))


APT_REMOVES = either(uses("apt", lambda given: given.get("state") == "absent" and not given.get("purge")), shell(r"apt-get .*\bremove\b"))
APT_PURGES = either(uses("apt", lambda given: given.get("state") == "absent" and bool(given.get("purge"))), shell(r"apt-get .*--purge"))

WANTED: dict[str, Callable[[str], bool]] = {
    "apt install": uses(
        "apt",
        lambda given: state("present")(given) and "allow_downgrade" not in given and "upgrade" not in given and bool(names_text(given)),
    ),
    "apt upgrade": uses("apt", lambda given: given.get("state") == "latest" or "upgrade" in given),
    "apt downgrade": uses("apt", lambda given: bool(given.get("allow_downgrade"))),
    "apt remove": APT_REMOVES,
    "apt purge": APT_PURGES,
    "failing postinst": uses("apt", lambda given: "acid-broken" in names_text(given) or "acid-flaky" in names_text(given)),
    "dpkg via command": shell(r"\bdpkg (-i|-r|-P|--unpack|--purge|--force-depends|--configure)"),
    "pacman": uses("pacman"),
    **{
        module: uses(module)
        for module in (
            "copy",
            "template",
            "lineinfile",
            "blockinfile",
            "replace",
            "assemble",
            "unarchive",
            "get_url",
            "git",
            "pip",
            "user",
            "group",
            "authorized_key",
            "cron",
            "systemd_service",
            "service",
            "hostname",
            "sysctl",
            "raw",
            "script",
            "command",
        )
    },
    **{f"file: {kind}": uses("file", state(kind)) for kind in ("directory", "absent", "touch", "link", "hard")},
    "file: file": uses("file", lambda given: "state" not in given),
    "mount: tmpfs": uses("mount", lambda given: given.get("fstype") == "tmpfs"),
    "mount: bind": uses("mount", lambda given: "bind" in str(given.get("opts"))),
    "shell pipelines": lambda name: any(module_of(task) == "shell" and re.search(r"[^|]\|[^|]", line(task)) for task in TASKS[name]),
    "pip in a venv": uses("pip", lambda given: "virtualenv" in given),
    "git of a local bare repository": uses("git", lambda given: given["repo"].startswith("/srv/git")),
    "async with poll": task_has(lambda task: "async" in task and task.get("poll", 15) > 0),
    "poll: 0": task_has(lambda task: "async" in task and task.get("poll") == 0),
    "loops": task_has(lambda task: "loop" in task or "with_items" in task),
    "retries": task_has(lambda task: "retries" in task and "until" in task),
    "roles": play_has(lambda play: bool(play.get("roles"))),
    "include_role": uses("include_role"),
    "include_tasks": uses("include_tasks"),
    "handlers": either(play_has(lambda play: bool(play.get("handlers"))), task_has(lambda task: "notify" in task)),
    "block": task_has(lambda task: "block" in task),
    "rescue": task_has(lambda task: "rescue" in task),
    "always": task_has(lambda task: "always" in task),
    "ignore_errors": task_has(lambda task: bool(task.get("ignore_errors"))),
    "delegate_to": task_has(lambda task: "delegate_to" in task),
    "run_once": task_has(lambda task: bool(task.get("run_once"))),
    "become to root": lambda name: PLAYS[name].get("become") is True and NEEDS[name].vars.get("ansible_user", "root") != "root",
    "become with a password": lambda name: "ansible_become_password" in NEEDS[name].vars,
    "become to another user": task_has(lambda task: task.get("become_user", "root") != "root"),
    "become inside a step": shell(r"\b(sudo|su|runuser|setpriv)\b.* (app|deploy)\b"),
    "check mode tasks": task_has(lambda task: task.get("check_mode") is True),
    "tags": either(argument("--tags"), argument("--skip-tags")),
    "--start-at-task": argument("--start-at-task"),
    "serial": play_has(lambda play: "serial" in play),
    "free strategy": play_has(lambda play: str(play.get("strategy", "")).endswith("free")),
}

# The nasty files: made by prepare.sh, changed by the plays that mention them.
NASTY = {
    "suid": "suid-root",
    "capabilities": "ping-like",
    "ACL": "acl-file",
    "default ACL": "acl-dir",
    "xattr": "tagged",
    "+i": "immutable",
    "+a": "append-only",
    "hard links": "link-two",
    "big hard links": "big-two",
    "sparse": "sparse",
    "fifo": "fifo",
    "socket": "socket",
    "device node": "null-like",
    "255 bytes": "'n' * 255",
    "not UTF-8": r"caf\xe9-\xff\xfe",
    "newline": r"two\nlines",
    "symlink loop": "loop-a",
    "directory renamed": "rename-me",
    "directory replaced by a symlink": "becomes-link",
    "100,000 files": "/srv/many",
    "2 GiB": "huge.bin",
}


@pytest.mark.parametrize("what", WANTED)
def test_each_feature_is_in_three_plays(what: str) -> None:
    found = [name for name in IDS if WANTED[what](name)]
    assert len(found) >= 3, f"{what}: only in {found}"


def test_there_are_sixty_plays() -> None:
    assert len(ALL) >= 60
    assert len({scenario.number for scenario in ALL}) == len(ALL)


@pytest.mark.parametrize("name", IDS)
def test_each_play_has_eight_tasks_and_five_modules(name: str) -> None:
    real = [task for task in TASKS[name] if module_of(task) and module_of(task) not in NO_MODULES]
    assert len(real) >= 8, f"{len(real)} tasks"
    modules = {module_of(task) for task in real}
    assert len(modules) >= 5, f"only {sorted(modules)}"


@pytest.mark.parametrize("name", IDS)
def test_each_play_fails_by_default_and_only_then(name: str) -> None:
    text = NEEDS[name].path.read_text(encoding="utf-8")
    assert len(re.findall(r"scenario_fail \| default\(true\)", text)) == 1
    failing = [task for task in TASKS[name] if "scenario_fail" in str(task)]
    tasks = [task for section in ("pre_tasks", "tasks", "post_tasks") for task in catalog._walk(PLAYS[name].get(section, []))]
    last = [task for task in tasks if module_of(task)]
    # What an always section does after the failure is not the play's way on.
    assert failing[0] in last[-2:]


@pytest.mark.parametrize(
    "path", sorted(path for path in catalog.PLAYS.rglob("*") if path.is_file() and "built" not in path.parts), ids=lambda path: path.name
)
def test_the_plays_know_nothing_of_the_collection(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"acid\.host|acid_[a-z]|acidctl|tx_(begin|step|commit|rollback|savepoint|info)|transaction", text)


def test_every_nasty_file_is_made_before_and_changed_by_a_play() -> None:
    made = (SCENARIOS / "prepare.sh").read_text(encoding="utf-8")
    changed = "".join(path.read_text(encoding="utf-8") for path in catalog.PLAYS.rglob("*") if path.suffix in (".yml", ".py", ".sh"))
    missing = [what for what, text in NASTY.items() if text not in changed or text.replace("'n' * 255", 'b"n" * 255') not in made]
    assert not missing


def test_the_quick_selection_covers_what_differs_most() -> None:
    quick = [scenario.name for scenario in ALL if scenario.quick]
    assert 10 <= len(quick) <= 14
    needed = (
        "apt upgrade",
        "failing postinst",
        "pacman",
        "user",
        "systemd_service",
        "async with poll",
        "poll: 0",
        "handlers",
        "loops",
        "delegate_to",
        "run_once",
        "become with a password",
        "become to another user",
        "ignore_errors",
        "template",
        "unarchive",
        "script",
    )
    missing = [what for what in needed if not any(WANTED[what](name) for name in quick)]
    assert not missing
