# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plays copy, unpack and download: made here, the same bytes each time, and served on the lab's bridge."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .catalog import PLAYS

BUILT = PLAYS / "files" / "built"
DATE = (2024, 2, 29, 12, 0, 0)
EPOCH = 1709208000

GREETER = '''"""Says hello."""
import sys


def main():
    if "--check" in sys.argv:
        sys.exit("greeter: the check fails")
    print("hello from greeter {version}")
'''


def _wheel(version: str) -> bytes:
    info = f"greeter-{version}.dist-info"
    files = {
        "greeter/__init__.py": GREETER.replace("{version}", version),
        **{f"greeter/part{number}.py": f"NUMBER = {number}\n" for number in range(5)},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: greeter\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: scenarios\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    return _zip({name: text.encode() for name, text in files.items()})


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def _release() -> bytes:
    """A release of the application: files, a script, an empty directory, symbolic and hard links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:

        def add(name: str, *, mode: int = 0o644, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.mode, member.mtime, member.type, member.linkname, member.size = mode, EPOCH, kind, link, len(data)
            archive.addfile(member, io.BytesIO(data))

        for name in ("static", "lib", "bin", "empty"):
            add(name, mode=0o755, kind=tarfile.DIRTYPE)
        for number in range(20):
            add(f"static/page-{number}.html", data=b"<p>%d</p>\n" % number * (number + 1))
            add(f"lib/module-{number}.py", data=b"NUMBER = %d\n" % number)
        add("bin/run", mode=0o755, data=b"#!/bin/sh\nexec sleep 1\n")
        add("bin/start", kind=tarfile.SYMTYPE, link="run")
        add("lib/same.py", kind=tarfile.LNKTYPE, link="lib/module-3.py")
    data = bytearray(out.getvalue())
    data[4:8] = b"\0\0\0\0"  # the time in the gzip header
    return bytes(data)


def build() -> Path:
    """Write all files that the plays need; returns their directory."""
    files = {
        "greeter-1.0-py3-none-any.whl": _wheel("1.0"),
        "greeter-2.0-py3-none-any.whl": _wheel("2.0"),
        "release.tar.gz": _release(),
        "data.zip": _zip({f"data-{number}.bin": bytes([number]) * 5000 for number in range(15)}),
        "motd": b"# from the mirror\nPATH=/usr/local/bin:$PATH\n",
    }
    files["SHA256SUMS"] = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()).encode()
    BUILT.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = BUILT / name
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
    return BUILT


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A test's output has no use for an access log."""


@contextmanager
def mirror(address: str) -> Iterator[str]:
    """Serve the built files on an address of this machine; gives the URL."""
    server = ThreadingHTTPServer((address, 0), partial(_Silent, directory=str(build())))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
