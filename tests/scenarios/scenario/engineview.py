# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host's own command says of its transactions. Only to drive the tests: whether a host is as before is for the oracle to say."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from .stage import Host, ssh

ACIDCTL = "/usr/local/sbin/acidctl"
OVER = ("COMMITTED", "ABORTED", "RESOLVED")


@dataclass(frozen=True)
class Done:
    code: int
    text: str
    seconds: float


def _acidctl(host: Host, *argv: str) -> Done:
    started = time.monotonic()
    done = ssh.inside(host, [ACIDCTL, *argv])
    text = (done.stdout + done.stderr).decode(errors="replace").strip()
    return Done(done.returncode, text, time.monotonic() - started)


def _installed(host: Host) -> bool:
    return ssh.inside(host, ["test", "-x", ACIDCTL]).returncode == 0


def open_transaction(host: Host) -> dict[str, Any] | None:
    """The host's open transaction; None also where the engine never came to."""
    if not _installed(host):
        return None
    done = _acidctl(host, "info", "--json")
    if done.code:
        return {"error": done.text}
    found: dict[str, Any] | None = json.loads(done.text).get("open")
    return found


def transactions(host: Host) -> dict[str, str]:
    """Transaction id -> state, oldest first."""
    if not _installed(host):
        return {}
    done = _acidctl(host, "list", "--json")
    listed = json.loads(done.text)
    return {item["tx"]: item["state"] for item in (listed["transactions"] if isinstance(listed, dict) else listed)}


def rollback(host: Host, tx: str) -> Done:
    return _acidctl(host, "rollback", tx, "--json")


def agent_pid(host: Host) -> int:
    """The agent's pid as its own host sees it; 0 for none."""
    done = ssh.inside(host, ["systemctl", "show", "--property=MainPID", "--value", "acid-agent.service"])
    return int(done.stdout.strip() or b"0")
