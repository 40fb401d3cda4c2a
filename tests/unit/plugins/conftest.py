# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection with a fake engine, and ansible-playbook over the local connection: the whole controller side without a host.

The engine's places (/usr/local/lib/acid and so on) are file systems of the test's own, in the mount namespace of the sandbox.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[3]
ENGINE = Path(__file__).resolve().parent / "fake_engine"
LIBRARY = Path("/usr/local/lib/acid")
PLACES = ("/usr/local/lib", "/usr/local/sbin")


@dataclass
class Run:
    rc: int
    stdout: str
    stderr: str

    @property
    def recap(self) -> str:
        return self.stderr.partition("TRANSACTIONS ")[2]


@dataclass
class Controller:
    """Runs plays as a user would. `calls` are those of the fake host command since the last `forget`."""

    folder: Path
    collections: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, play: str, name: str = "play.yml") -> Path:
        path = self.folder / name
        path.write_text(play)
        return path

    def command(self, play: str, *arguments: str, hosts: str = "h1,") -> list[str]:
        path = self.write(play)
        words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", hosts, "-c", "local", str(path)]
        return [*words, "-e", "ansible_python_interpreter=/usr/bin/python3", *arguments]

    def env(self, *, callback: bool = True, **extra: str) -> dict[str, str]:
        settings = {
            "ANSIBLE_COLLECTIONS_PATH": f"{self.collections}{os.pathsep}{TOP / '.build' / 'collections'}",
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "remote-tmp"),
        }
        if callback:
            settings["ANSIBLE_CALLBACKS_ENABLED"] = "acid.host.transaction"
        return {**os.environ, **settings, **self.environment, **extra}

    def play(self, play: str, *arguments: str, hosts: str = "h1,", callback: bool = True, **extra: str) -> Run:
        done = subprocess.run(
            self.command(play, *arguments, hosts=hosts),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.env(callback=callback, **extra),
        )
        return Run(done.returncode, done.stdout, done.stderr)

    def calls(self, verb: str | None = None) -> list[dict[str, Any]]:
        try:
            lines = (LIBRARY / "fake" / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [call for call in map(json.loads, lines) if verb is None or call["verb"] == verb]

    def verbs(self) -> list[str]:
        """In order, with runs of `exec` as one."""
        verbs = [call["verb"] for call in self.calls() if call["verb"] != "install"]
        return [verb for at, verb in enumerate(verbs) if at == 0 or not verb == verbs[at - 1] == "exec"]

    def forget(self) -> None:
        for name in ("calls", "answers"):
            (LIBRARY / "fake" / name).unlink(missing_ok=True)

    def answer(self, **answers: Any) -> None:
        """What the fake has to say from now on: verb={"rc": N, "out": {...}}, refuse="sentence"."""
        (LIBRARY / "fake").mkdir(parents=True, exist_ok=True)
        (LIBRARY / "fake" / "answers").write_text(json.dumps(answers))


@pytest.fixture(scope="session")
def engine_places() -> Iterator[None]:
    for place in PLACES:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "acid-test", place], check=True)
    yield
    for place in PLACES:
        subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="session")
def fake_collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout as a collection, but for the engine."""
    root = tmp_path_factory.mktemp("collections")
    own = root / "ansible_collections" / "acid" / "host"
    (own / "plugins" / "module_utils").mkdir(parents=True)
    for name in ("galaxy.yml", "meta", "playbooks", "roles"):
        (own / name).symlink_to(TOP / name)
    for name in ("action", "callback", "doc_fragments", "modules", "plugin_utils"):
        (own / "plugins" / name).symlink_to(TOP / "plugins" / name)
    (own / "plugins" / "module_utils" / "engine").symlink_to(ENGINE)
    return root


@pytest.fixture
def controller(engine_places: None, fake_collection: Path, sandbox: Path) -> Controller:
    found = Controller(sandbox, fake_collection)
    found.forget()
    return found
