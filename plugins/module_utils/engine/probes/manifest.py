# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The probe etc's list of all its files, as one object among their contents."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from typing import NamedTuple

from .contents import Contents
from .filetree import LARGEST, Entry, Tree

# Of an entry's fields; raised with each change of them.
FORMAT = 1


class Manifest(NamedTuple):
    """`inside` the trees, and the directories `around` them, which are only settled."""

    inside: Tree
    around: Tree


def dump(manifest: Manifest, contents: Contents) -> str:
    """Keeps it, and says its digest."""
    trees = [{os.fsdecode(path): tree[path].to_json() for path in sorted(tree)} for tree in manifest]
    content = zlib.compress(json.dumps([FORMAT, *trees]).encode(), 1)
    digest = hashlib.sha256(content).hexdigest()
    contents.add(digest, content)
    return digest


def load(contents: Contents, digest: str) -> Manifest | None:
    """None when it is missing, damaged, or of another version of the engine."""
    content = contents.get(digest) if digest else None
    if content is None:
        return None
    try:
        version, *trees = json.loads(zlib.decompress(content))
    except (TypeError, ValueError, zlib.error):
        return None
    if version != FORMAT:
        return None
    return Manifest(*({os.fsencode(path): Entry.from_json(data) for path, data in tree.items()} for tree in trees))


def digest_of(path: str) -> str:
    """What the file says that names the newest manifest; empty when there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(100)
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def aside(path: bytes, entry: Entry, attic: str) -> str:
    """Copies a file that is about to be replaced or removed; the copy's path. Empty for what is neither a file nor a symlink."""
    if not (stat.S_ISREG(entry.mode) and entry.digest) and not stat.S_ISLNK(entry.mode):
        return ""
    os.makedirs(attic, mode=0o700, exist_ok=True)
    copy = os.path.join(attic, "etc-" + os.urandom(4).hex() + "-" + os.fsdecode(os.path.basename(path))[:100])
    if stat.S_ISLNK(entry.mode):
        os.symlink(entry.target, copy)
        return copy
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        content = file.read(LARGEST)
    with open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    return copy
