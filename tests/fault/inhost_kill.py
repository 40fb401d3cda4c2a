# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a host: one transaction, driven as a controller drives it, of which something is killed at a moment; then it is ended.

python3 -I - JSON      {"steps": [script, ...], "end": "commit" | "rollback", "victim": ..., "phase": name, "after": seconds, "options": {}}
    victim    "agent", "step" (all processes of the step), "all" (agent, step, and the acidctl that waits), "none"
    end       "settle": begins nothing, and ends what is open
    phase     "begin", "step", "commit", "rollback": the moment is so many seconds after its start

Prints {"struck": bool, "seconds": {phase: seconds}, "state": of the transaction at last, "told": [...]}.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

PATIENCE = 60.0


def encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


class Drive:
    def __init__(self, plan: dict) -> None:
        self.plan = plan
        self.struck = False
        self.seconds: dict[str, float] = {}
        self.told: list[str] = []
        self._running: subprocess.Popen | None = None
        self._tx, self._token = "", 0

    # -- the killer ------------------------------------------------------------------------------------------------------

    def _strike(self) -> None:
        agent, running = int(self._sh("systemctl show -P MainPID acid-agent") or 0), self._running
        victim = self.plan["victim"]
        if running is None or running.poll() is not None:
            return
        self.struck = True
        if victim in ("agent", "all") and agent:
            _kill(agent)
        if victim in ("step", "all"):
            for pid in _tree(running.pid):
                _kill(pid)

    @contextlib.contextmanager
    def _phase(self, name: str):
        start, killer = time.monotonic(), None
        if name == self.plan["phase"] and self.plan["victim"] != "none":
            killer = threading.Timer(self.plan["after"], self._strike)
            killer.start()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
            if killer is not None:
                killer.cancel()
                killer.join()

    # -- the transaction -------------------------------------------------------------------------------------------------

    @staticmethod
    def _sh(script: str) -> str:
        return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False).stdout.strip()

    def _run(self, argv: list[str], script: str = "") -> tuple[int, str]:
        self._running = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        out, _err = self._running.communicate(script)
        return self._running.returncode, out

    def _ctl(self, verb: str, **request: object) -> dict:
        code, out = self._run(["acidctl", verb, "--json", "--request", encoded(request)])
        try:
            return json.loads(out)
        except ValueError:
            return {"error": {"msg": f"{verb}: code {code}: {out[-300:]}"}}

    def run(self) -> None:
        with self._phase("begin"):
            begun = self._ctl("begin", name="kill", owner="kill", options=self.plan["options"])
        if "tx" not in begun:
            self.told.append(str(begun))
            return
        self._tx, self._token = begun["tx"], begun["token"]
        with self._phase("step"):
            good = all(self._step(script) for script in self.plan["steps"])
        if good and self.plan["end"] == "commit":
            with self._phase("commit"):
                done = self._ctl("commit", tx=self._tx, token=self._token, steps=[])
            self.told.append(str(done.get("state") or done))
        with self._phase("rollback"):
            done = self._ctl("rollback", tx=self._tx)
        self.told.append(str(done.get("state") or done))

    def _step(self, script: str) -> bool:
        info = encoded({"id": uuid.uuid4().hex, "task": script[:30], "module": "shell", "position": "kill:1", "no_log": False})
        argv = ["acidctl", "exec", "--tx", self._tx, "--token", str(self._token), "--step", info, "--", "bash", "-e", "-s"]
        code, out = self._run(argv, script)
        if code:
            self.told.append(f"step: code {code}: {out[-200:]}")
        return code == 0

    def settle(self) -> str:
        """Until the host has no open transaction: it is what a controller, or the next begin, would wait for and undo."""
        end = time.monotonic() + PATIENCE
        while True:
            listed = self._sh("acidctl list --json")
            known = json.loads(listed)["transactions"] if listed.startswith("{") else []
            state = known[0]["state"] if known else ""
            if state in ("ABORTED", "UNDO_FAILED", "") and listed:
                return state
            if time.monotonic() > end:
                return f"{state} after {PATIENCE:.0f} s"
            if state:
                self._sh(f"acidctl rollback --json {known[0]['tx']}")
            time.sleep(0.1)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _tree(first: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as f:
                children.setdefault(int(f.read().rpartition(")")[2].split()[1]), []).append(int(name))
    found = [first]
    for pid in found:
        found += children.get(pid, [])
    return found


def main() -> None:
    drive = Drive(json.loads(sys.argv[1]))
    if drive.plan["end"] != "settle":
        drive.run()
    state = drive.settle()
    print(json.dumps({"struck": drive.struck, "seconds": drive.seconds, "state": state, "told": drive.told}))


if __name__ == "__main__":
    main()
