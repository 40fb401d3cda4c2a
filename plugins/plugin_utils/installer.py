# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs on the host, as root, under the Python that the engine will use: unpacks the engine and makes it the current version.

    python3 -IS installer.py ARCHIVE HASH LIBRARY SBIN

Prints {"engine": HASH, "python": PATH} or {"error": {...}}. Standard library of Python 3.9 only; imports nothing of the
collection, because it is sent to the host by itself. If it dies between any two lines, what it wrote stays beside the final
directory and the next run starts anew. The modification times of the directories that it writes to are put back: installing the
engine is no change of the host's own state.
"""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

LAUNCHER = """#!{python} -IS
# -I and -S: no environment variable, user directory or .pth file may choose what root runs.
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, {home!r})

if sys.argv[1:2] == ["exec"]:  # starts with every task, so it loads nothing else
    from engine.exec import main

    sys.exit(main(sys.argv[2:]))
from engine.cli import main

sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def unchanged_times(*directories: str) -> Iterator[None]:
    """Put back the times of the directories that were there, and create those that were not."""
    missing = []
    before = []
    for directory in directories:
        path = directory
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        info = os.stat(path)
        before.append((path, info.st_atime_ns, info.st_mtime_ns))
    for path in sorted(set(missing), key=len):
        os.mkdir(path, 0o755)
    try:
        yield
    finally:
        for path, atime, mtime in before:
            os.utime(path, ns=(atime, mtime))


def main(arguments: list[str]) -> int:
    archive, name, library, sbin = arguments
    os.umask(0o022)
    home = os.path.join(library, name)
    with unchanged_times(library, os.path.dirname(library), os.path.dirname(sbin)):
        if not is_whole(home):
            place(archive, home)
        point(os.path.join(library, "current"), name)
        point(sbin, os.path.join(library, "current", "acidctl"))
    done = subprocess.run([os.path.join(home, "acidctl"), "install", "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
        if lines and lines[-1].startswith("{"):
            print(lines[-1])
            return done.returncode
        raise OSError("'acidctl install' ended with exit code %d: %s" % (done.returncode, lines[-1] if lines else "no output"))
    print(json.dumps({"engine": name, "python": sys.executable}))
    return 0


def place(archive: str, home: str) -> None:
    new = "%s.new-%d" % (home, os.getpid())
    shutil.rmtree(new, ignore_errors=True)
    os.mkdir(new, 0o755)
    try:
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                unpack(tar, member, new)
        compile_all(new, home)
        launcher = os.path.join(new, "acidctl")
        with open(launcher, "w") as file:
            file.write(LAUNCHER.format(python=sys.executable, home=home))
        os.chmod(launcher, 0o755)
        with open(os.path.join(new, "MANIFEST"), "w") as file:
            file.writelines("%s  %s\n" % (digest(os.path.join(new, path)), path) for path in listing(new))
        flush(new)
        try:
            os.rename(new, home)
        except OSError:
            if is_whole(home):
                return  # another play was faster, with the same content
            shutil.rmtree(home)
            os.rename(new, home)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def compile_all(new: str, home: str) -> None:
    """unchecked-hash: bytecode stays valid whatever happens to the sources' times; MANIFEST guards the contents."""
    for path in listing(new):
        try:
            py_compile.compile(
                os.path.join(new, path),
                dfile=os.path.join(home, path),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        except py_compile.PyCompileError as error:
            raise OSError("%s does not compile under %s: %s" % (path, sys.executable, error.exc_value)) from error


def unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, new: str) -> None:
    target = os.path.join(new, member.name)
    if not member.isfile() or not os.path.realpath(target).startswith(os.path.realpath(new) + os.sep):
        raise OSError("the archive holds %r, which is no plain file of the engine" % member.name)
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    content = tar.extractfile(member)
    if content is None:
        raise OSError("the archive holds %r without content" % member.name)
    with open(target, "wb") as file:
        shutil.copyfileobj(content, file)
    os.chmod(target, 0o644)


def is_whole(home: str) -> bool:
    """Every file is as MANIFEST says, root's own, and the interpreter is this one."""
    try:
        with open(os.path.join(home, "MANIFEST")) as file:
            recorded = {line[66:].rstrip("\n"): line[:64] for line in file}
        with open(os.path.join(home, "acidctl")) as file:
            if file.readline() != "#!%s -IS\n" % sys.executable:
                return False
        for path in listing(home):
            info = os.lstat(os.path.join(home, path))
            if info.st_uid != 0 or info.st_mode & 0o022 or not stat.S_ISREG(info.st_mode):
                return False
            if recorded.pop(path, None) != digest(os.path.join(home, path)):
                return False
        return not recorded
    except (OSError, ValueError):
        return False


def listing(home: str) -> list[str]:
    found: list[str] = []
    for folder, _dummy, names in os.walk(home):
        found += [os.path.relpath(os.path.join(folder, name), home) for name in names]
    return sorted(path for path in found if path != "MANIFEST")


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def flush(folder: str) -> None:
    for inner, _dummy, names in os.walk(folder):
        for name in [*names, "."]:
            descriptor = os.open(os.path.join(inner, name), os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def point(link: str, target: str) -> None:
    if os.path.islink(link) and os.readlink(link) == target:
        return
    new = "%s.new-%d" % (link, os.getpid())
    os.symlink(target, new)
    os.rename(new, link)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as problem:
        error = {"class": "not-installed", "msg": "the engine could not be installed: %s." % problem, "hint": ""}
        print(json.dumps({"error": error}))
        sys.exit(1)
