# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay out a collections path: this checkout as acid.host, and the collections that the tests use.

    collection_path.py SERIES CHECKOUT TARGET

The others come out of the `ansible` package on PyPI, so that no Galaxy server is needed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

USED = ("ansible.posix", "community.crypto", "community.general", "community.postgresql")


def package_version(series: str, table: Path) -> str:
    for line in table.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words and words[0] == series:
            return words[1]
    raise SystemExit(f"{table}: no line for ansible-core {series}")


def main(series: str, checkout: Path, target: Path) -> None:
    version = package_version(series, checkout / "requirements" / "collections.txt")
    own = target / "ansible_collections" / "acid" / "host"
    made_of = target / "version"
    contents = f"{version} {' '.join(USED)}"
    if made_of.exists() and made_of.read_text(encoding="utf-8") == contents and own.resolve() == checkout:
        return
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps", "--dest", scratch]
        subprocess.run([*download, f"ansible=={version}"], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        folders = tuple(f"ansible_collections/{name.replace('.', '/')}/" for name in USED)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target, [name for name in archive.namelist() if name.startswith(folders)])
    own.parent.mkdir(parents=True)
    own.symlink_to(checkout)
    made_of.write_text(contents, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
