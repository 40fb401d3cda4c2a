# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine on a host of the lab, driven as the controller drives it, but by hand.

    rig.exact("rm -r old; mv a b")          begin, one step, rollback;
    the tree below rig.root must be as before, and the step must have changed it
    rig.begin(); rig.step("..."); rig.savepoint("one"); rig.rollback(to="one"); rig.commit()

Everything that a test touches lies below rig.root (made anew for each test), which tree.py on the host looks at;
the engine has no part in that.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [path for path in (str(TOP / "tests" / "lab"), str(HERE / "onhost")) if path not in sys.path]

from acidlab import lifecycle, registry, ssh
from acidlab.model import Host
from acidlab.oracle.capture import capture
from acidlab.oracle.compare import compare
from acidlab.oracle.model import State
from ansible_collections.acid.host.plugins.plugin_utils import delivery
from tree import differences

PLACE = "/opt/rig"
BASE = "/srv/rig"
KILL = "kill -9 $(systemctl show -P MainPID acid-agent | grep -v '^0$')"  # 0, when there is none, would be the shell's own group
Tree = dict[str, dict[str, object]]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def error(self) -> dict[str, str]:
        """{"class", "msg", "hint"} of a verb that failed."""
        found: dict[str, str] = self.json["error"]
        return found


class Rig:
    """One host, one connection. `tx` and `token` are those of the last begin."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.root = ""
        self.tx, self.token = "", 0
        self._server: subprocess.Popen[str] | None = None
        self._install()

    def _install(self) -> None:
        engine = delivery.engine()
        for name, content in (("engine.tgz", engine.archive), ("installer.py", delivery.INSTALLER.read_bytes())):
            self.raw(["sh", "-c", f"mkdir -p {PLACE}; cat > {PLACE}/{name}"], content)
        for path in sorted((HERE / "onhost").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                target = f"{PLACE}/{path.relative_to(HERE / 'onhost')}"
                self.raw(["sh", "-c", f"mkdir -p {PLACE}/src; cat > {target}"], path.read_bytes())
        install = f"python3 -IS {PLACE}/installer.py {PLACE}/engine.tgz {engine.hash} /usr/local/lib/acid /usr/local/sbin/acidctl"
        assert engine.hash in self.raw(["sh", "-c", install])

    # -- the connection --------------------------------------------------------------------------------------------------

    def raw(self, argv: list[str], stdin: bytes = b"") -> str:
        """One command over ssh, outside of the connection that is kept."""
        words = [" ".join("'" + word.replace("'", "'\\''") + "'" for word in argv)]
        done = subprocess.run(ssh.argv(self.host, words), input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, (argv, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout.decode()

    def ask(self, **request: object) -> dict[str, Any]:
        if self._server is None:
            argv = ssh.argv(self.host, [f"python3 -I {PLACE}/server.py"])
            self._server = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        assert line, f"{self.host.name}: the server on the host has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._server is not None:
            with contextlib.suppress(OSError):
                self._server.communicate(timeout=10)
            self._server = None

    def run(self, *argv: str, stdin: str = "", seconds: float = 60) -> Done:
        return Done(**self.ask(run=list(argv), stdin=stdin, seconds=seconds))

    def sh(self, script: str, *, good: bool = True, seconds: float = 60) -> Done:
        """A script of bash outside of any transaction's step, in the test's folder."""
        done = self.run("bash", "-c", self._in_root(script), seconds=seconds)
        assert done.code == 0 or not good, (script, done)
        return done

    def start(self, script: str) -> int:
        """Start a process that is no child of any step; its number."""
        pid: int = self.ask(start=["bash", "-c", self._in_root(script)])["pid"]
        return pid

    @contextlib.contextmanager
    def killing(self, after: float) -> Iterator[None]:
        """The agent is killed `after` seconds from now. At the block's end that has happened: it cannot hit what comes next."""
        self.sh("rm -f /run/killed")
        self.start(f"sleep {after:.3f}; {KILL}; touch /run/killed")
        yield
        self.sh("until [ -e /run/killed ]; do sleep 0.05; done")

    def write(self, path: str, text: str | bytes, *, mode: int = 0o644) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.ask(write=path, text=base64.b64encode(data).decode(), mode=mode)

    def _in_root(self, script: str) -> str:
        return f"export LC_ALL=C.UTF-8; {f'cd {self.root} || exit 120; ' if self.root else ''}{script}"

    # -- acidctl ---------------------------------------------------------------------------------------------------------

    def ctl(self, verb: str, *arguments: str, seconds: float = 120, **request: object) -> Done:
        words = ["--request", base64.b64encode(json.dumps(request).encode()).decode()] if request else []
        return self.run("acidctl", verb, "--json", *words, *arguments, seconds=seconds)

    def try_begin(self, **options: object) -> Done:
        """Without the probes that cost time: they have tests of their own."""
        exclude = options.pop("exclude", [])
        name, owner = options.pop("name", "rules"), options.pop("owner", "tests")
        return self.ctl("begin", name=name, owner=owner, options={"probes": ["hostname"], **options}, exclude=exclude)

    def begin(self, **options: object) -> str:
        done = self.try_begin(**options)
        assert done.code == 0, done
        self.tx, self.token = done.json["tx"], done.json["token"]
        return self.tx

    def argv(self, command: list[str], *, step: str = "", task: str = "") -> list[str]:
        info = {"id": step or uuid.uuid4().hex, "task": task or " ".join(command)[:60], "module": "command", "position": "rules.yml:1"}
        encoded = base64.b64encode(json.dumps(info).encode()).decode()
        return ["acidctl", "exec", "--tx", self.tx, "--token", str(self.token), "--step", encoded, "--", *command]

    def step(self, script: str, *, good: bool | None = True, seconds: float = 60, shell: str = "bash") -> Done:
        """A step of its own. good=None: its exit code does not matter."""
        done = self.run(*self.argv([shell, "-c", self._in_root(script)]), seconds=seconds)
        assert good is None or (done.code == 0) == good, (script, done)
        return done

    def python(self, program: str, *, good: bool | None = True, seconds: float = 60) -> Done:
        """A step that runs a Python program, after calls.py: call(name, ...) makes a system call by its name."""
        path = f"{PLACE}/program-{uuid.uuid4().hex}.py"
        self.write(path, f"import os, sys\nsys.path.insert(0, {PLACE!r})\nfrom calls import *\nos.chdir({self.root!r})\n{program}")
        try:
            done = self.run(*self.argv(["python3", "-B", path]), seconds=seconds)
        finally:
            self.run("rm", "-f", path)
        assert good is None or (done.code == 0) == good, (program, done)
        return done

    def savepoint(self, name: str) -> None:
        done = self.ctl("savepoint", tx=self.tx, token=self.token, name=name)
        assert done.code == 0, done

    def commit(self) -> dict[str, Any]:
        done = self.ctl("commit", tx=self.tx, token=self.token, steps=[])
        assert done.code == 0, done
        return done.json

    def rollback(self, *, to: str = "", exact: bool = True) -> dict[str, Any]:
        """The summary; with exact=True the engine itself must have found no difference."""
        done = self.ctl("rollback", tx=self.tx, token=self.token, **({"to": to} if to else {}))
        summary = done.json
        assert done.code == (25 if summary.get("state") == "UNDO_FAILED" else 0), done
        assert not exact or (summary["differs"] == [] and summary["state"] == ("ACTIVE" if to else "ABORTED")), summary
        return summary

    def listed(self) -> dict[str, Any]:
        """What the journal says of it."""
        found: dict[str, Any] = next(value for value in self.ctl("list").json["transactions"] if value["tx"] == self.tx)
        return found

    def state_now(self) -> str:
        return str(self.listed()["state"])

    def wait_for(self, state: str, seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while self.state_now() != state:
            assert time.monotonic() < end, f"{self.tx} is {self.state_now()} and not {state} after {seconds} s"
            time.sleep(0.1)

    # -- judging ---------------------------------------------------------------------------------------------------------

    def look(self, root: str = "") -> Tree:
        found: Tree = self.ask(look=root or self.root)["tree"]
        return found

    def changed(self, before: Tree, root: str = "") -> list[str]:
        return differences(before, self.look(root))

    def exact(self, *scripts: str, prepare: str = "", control: bool = True) -> list[Done]:
        """Each script is a step. What they leave must differ from before (else the test would show nothing), and the rollback
        must bring it back."""
        if prepare:
            self.sh(prepare)
        before = self.look()
        self.begin()
        done = [self.step(script) for script in scripts]
        assert not control or self.changed(before), "the steps changed nothing"
        self.rollback()
        assert self.changed(before) == []
        return done

    def exact_python(self, *programs: str, prepare: str = "") -> list[Done]:
        """Like `exact`, with Python programs."""
        if prepare:
            self.sh(prepare)
        before = self.look()
        self.begin()
        done = [self.python(program) for program in programs]
        assert self.changed(before), "the steps changed nothing"
        self.rollback()
        assert self.changed(before) == []
        return done

    def clean(self) -> None:
        """End what a test that failed left open."""
        self.root = ""
        for value in self.ctl("list").json.get("transactions", []):
            if value["state"] in ("ACTIVE", "REWINDING", "COMMITTING", "DOOMED", "ABORTING", "UNDO_FAILED"):
                self.ctl("rollback", tx=value["tx"])
                self.ctl("resolve", value["tx"])

    def fresh_root(self) -> None:
        """An empty folder; what the test before left in it may be locked or mounted."""
        script = f"""
            awk '$2 ~ "^{BASE}(/|$)" {{print $2}}' /proc/mounts | sort -r | xargs -r -n1 umount -l
            [ -d {BASE} ] && chattr -R -f -i -a {BASE}; rm -rf {BASE}; mkdir -p {BASE}/t; chmod 755 {BASE} {BASE}/t
        """
        self.sh(script, good=False, seconds=300)
        self.root = f"{BASE}/t"

    def state(self) -> State:
        return capture(self.host)

    def differences(self, before: State) -> list[str]:
        return [str(difference) for difference in compare(before, self.state())]


class Rigs:
    """The hosts of one lab, by file system."""

    IMAGES = {"btrfs": "big", "ext4": "base", "xfs": "base"}

    def __init__(self, lab: str, *, keep: bool) -> None:
        self._lab, self._keep = lab, keep
        self._made: dict[str, Rig] = {}
        self._opened = False

    def open(self) -> bool:
        """Whether this was the first time."""
        first, self._opened = not self._opened, True
        if first and not self._keep:
            lifecycle.down(self._lab)
        return first

    def close(self) -> None:
        for rig in self._made.values():
            rig.close()
        if not self._keep:
            lifecycle.down(self._lab)

    def host(self, fs: str) -> Rig:
        if fs not in self._made:
            name = f"{fs}1"
            known = {host.name for lab in registry.labs() if lab.name == self._lab for host in registry.hosts(lab)}
            if name not in known:
                lifecycle.up(self._lab, count=1, fs=fs, prefix=fs, image_name=self.IMAGES[fs])
            self._made[fs] = Rig(registry.find_host(registry.find_lab(self._lab), name))
        return self._made[fs]

    def test(self, fs: str) -> Iterator[Rig]:
        """The host with an empty folder for one test; what the test leaves open is ended, and fails it."""
        rig = self.host(fs)
        rig.clean()
        rig.fresh_root()
        yield rig
        rig.clean()


def compile_program(folder: Path, name: str, *flags: str) -> bytes:
    target = folder / f"{name}{''.join(flags)}".replace("/", "_")
    if not target.exists():
        subprocess.run(["gcc", "-O1", "-Wall", "-Werror", *flags, "-o", str(target), str(HERE / "src" / name)], check=True)
    return target.read_bytes()
