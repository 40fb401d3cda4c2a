# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab host with the engine on it, driven by acidctl alone."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

from acidlab import registry
from acidlab.oracle.capture import capture
from acidlab.oracle.model import State
from ansible_collections.acid.host.plugins.plugin_utils import delivery

TOP = Path(__file__).resolve().parents[3]
LAB = TOP / "tests" / "lab" / "lab"
NAME = os.environ.get("ACID_PROBES_LAB", f"probes{os.getpid()}")


def lab(*arguments: str, data: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([str(LAB), "--lab", NAME, *arguments], input=data, capture_output=True, check=False)
    assert not check or done.returncode == 0, (arguments, done.stdout.decode(), done.stderr.decode())
    return done


def encoded(data: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(data).encode()).decode()


class Host:
    """A lab host with the engine on it, and at most one transaction."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tx, self.token = "", 0

    def sh(self, script: str, *, check: bool = True) -> str:
        """Outside of any step."""
        return lab("ssh", self.name, "bash -s", data=script.encode(), check=check).stdout.decode()

    def install(self) -> None:
        engine, installer = delivery.engine(), Path(delivery.__file__).parent / "installer.py"
        lab("ssh", self.name, "cat > /tmp/engine", data=engine.archive)
        lab("ssh", self.name, "cat > /tmp/installer", data=installer.read_bytes())
        paths = f"/tmp/engine {engine.hash} /usr/local/lib/acid /usr/local/sbin/acidctl"
        self.sh(f"python3 -IS /tmp/installer {paths}; rm /tmp/engine /tmp/installer")

    def begin(self, **options: Any) -> None:
        wish = encoded({"name": "probes", "owner": "test", "options": options})
        answer = json.loads(self.sh(f"acidctl begin --json --request {wish}", check=False))
        assert "error" not in answer, answer
        self.tx, self.token = answer["tx"], answer["token"]

    def step(self, script: str) -> None:
        step = encoded({"id": uuid.uuid4().hex, "task": script[:30], "module": "shell", "position": "x:1", "no_log": False})
        command = f"acidctl exec --tx {self.tx} --token {self.token} --step {step} -- bash -e -s"
        done = lab("ssh", self.name, command, data=script.encode(), check=False)
        assert done.returncode == 0, (script, done.stdout.decode(), done.stderr.decode())

    def rollback(self) -> dict[str, Any]:
        done = json.loads(self.sh(f"acidctl rollback --json {self.tx}", check=False))
        assert "error" not in done, done["error"]
        return done

    def commit(self) -> dict[str, Any]:
        return json.loads(self.sh(f"acidctl commit --json --request {encoded({'tx': self.tx, 'token': self.token, 'steps': []})}"))

    def state(self) -> State:
        # What a login or a start set in motion has come to rest.
        self.sh("for i in $(seq 50); do systemctl list-jobs --no-legend | grep -q . || break; sleep 0.1; done")
        return capture(registry.find_host(registry.find_lab(NAME), self.name))

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        text = self.sh(f"systemctl show -p {','.join(properties)} {unit}")
        return dict(line.split("=", 1) for line in text.splitlines() if line)
