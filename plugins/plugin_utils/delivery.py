# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Puts the engine on a host: once per version, as plain files, so that a warm begin costs one remote call.

`engine()` names the version that belongs to this collection by the hash of its sources. `deliver` sends one archive and the installer
(`installer.py`, run by the host's Python), which writes a directory beside the final one and renames it: if it dies half way the version
is simply not there. Several plays may deliver at the same time; the first rename wins, and all have the same content.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import shlex
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from . import elevation, paths
from .hostcommand import HostCommand, HostError, answer

SOURCES = Path(__file__).absolute().parent.parent / "module_utils" / "engine"
INSTALLER = Path(__file__).absolute().parent / "installer.py"

NO_PYTHON = 95

# In the order of trying, after the task's own interpreter. Ansible's discovery prefers the same.
PYTHONS = ("/usr/bin/python3", "/usr/libexec/platform-python", *(f"python3.{minor}" for minor in range(14, 8, -1)), "python3")

# Runs under any Python from 2.6 on: an old one must say that it is old, not that the syntax is wrong. A step may replace the
# interpreter's files, but nobody except root may, hence the look at the owner.
PROBE = """
import os, sys
def no(why):
    sys.stderr.write("acid-python: " + sys.argv[1] + ": " + why + chr(10)); sys.exit(1)
if sys.version_info < (3, 9): no("is Python %d.%d, and 3.9 is the oldest that will do" % sys.version_info[:2])
path = os.path.realpath(sys.executable)
info = os.stat(path)
if info.st_uid != 0 or info.st_mode & 18: no("can be changed by others than root (" + path + ")")
missing = []
for name in ("sqlite3", "ctypes"):
    try: __import__(name)
    except ImportError: missing.append(name)
if missing: no("has no module " + " and no module ".join(missing))
print(path)
"""


class Engine(NamedTuple):
    """`hash` is the first 16 hex digits of the sha256 over the sorted (name, content) of the sources."""

    hash: str
    archive: bytes


@functools.cache
def engine(sources: Path = SOURCES) -> Engine:
    files = {str(path.relative_to(sources)): path.read_bytes() for path in sorted(sources.rglob("*.py"))}
    if not files:
        raise FileNotFoundError(f"the collection is incomplete: no engine in {sources}; install it again")
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return Engine(digest.hexdigest()[:16], _archive(files))


def deliver(action: Any, task_vars: dict[str, Any], host: HostCommand) -> None:
    """Install this collection's engine on the action's host. Raises HostError with what is missing there."""
    current = engine()
    action._make_tmp_path()
    folder = action._connection._shell.tmpdir
    try:
        archive, installer = f"{folder}/engine.tar.gz", f"{folder}/installer.py"
        action._transfer_data(archive, current.archive)
        action._transfer_data(installer, INSTALLER.read_bytes())
        output = host.shell(_script(_candidates(action, task_vars), installer=installer, archive=archive, engine_hash=current.hash))
    finally:
        action._remove_tmp_path(folder)
    if output.rc == NO_PYTHON:
        raise _no_python(output.stderr + "\n" + output.stdout)
    installed = answer("install", output)
    if installed.get("engine") != current.hash:
        raise HostError("not-installed", f"the engine was installed as {json.dumps(installed.get('engine'))} instead of {current.hash}.")


def _archive(files: dict[str, bytes]) -> bytes:
    """The same bytes for the same files, whenever and wherever made."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"engine/{name}")
            member.size, member.mode, member.mtime = len(content), 0o644, 0
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(raw.getvalue(), mtime=0)


def _candidates(action: Any, task_vars: dict[str, Any]) -> list[str]:
    """The task's own interpreter first, where it is named by a path; then the usual ones."""
    variables = elevation.variables_of(action, task_vars)
    named = variables.get("ansible_python_interpreter") or variables.get("ansible_facts", {}).get("discovered_interpreter_python") or ""
    named = str(action._templar.template(named)) if named else ""
    return list(dict.fromkeys([*([named] if named.startswith("/") else []), *PYTHONS]))


def _script(candidates: list[str], *, installer: str, archive: str, engine_hash: str) -> str:
    names = " ".join(shlex.quote(name) for name in candidates)
    install = shlex.join([installer, archive, engine_hash, paths.LIBRARY, paths.SBIN])
    return (
        f"for name in {names}; do "
        'python=$(command -v "$name" 2>/dev/null) || continue; '
        f'python=$("$python" -c {shlex.quote(PROBE)} "$python" </dev/null) && exec "$python" -IS {install}; '
        f"done; exit {NO_PYTHON}"
    )


def _no_python(text: str) -> HostError:
    seen = list(dict.fromkeys(line.split("acid-python: ", 1)[1] for line in text.splitlines() if "acid-python: " in line))
    if not seen:
        return HostError("no-python", "there is no python3 on the host.", "Install Python 3.9 or newer there.")
    return HostError(
        "missing-python",
        f"no Python on the host will do: {'; '.join(seen)}.",
        "The engine needs a root-owned Python 3.9 or newer with sqlite3 and ctypes.",
    )
