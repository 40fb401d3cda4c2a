# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive and the installer, as the host runs it."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.acid.host.plugins.plugin_utils import delivery

PYTHON = "/usr/bin/python3"
CLI = "import sys\ndef main(argv):\n    print('{\"installed\": true}')\n    return 0\n"


@pytest.fixture
def sources(sandbox: Path) -> Path:
    folder = sandbox / "sources"
    (folder / "deep").mkdir(parents=True)
    (folder / "cli.py").write_text(CLI)
    (folder / "deep" / "part.py").write_text("x = 1\n")
    (folder / "notes.txt").write_text("not sent\n")
    return folder


@pytest.fixture
def install(sandbox: Path):
    """Run the installer on an engine; returns (exit code, answer, library)."""
    library, sbin = sandbox / "host" / "lib" / "acid", sandbox / "host" / "sbin" / "acidctl"

    def run(engine: delivery.Engine, archive: bytes | None = None):
        (sandbox / "archive").write_bytes(engine.archive if archive is None else archive)
        words = [PYTHON, "-IS", str(delivery.INSTALLER), str(sandbox / "archive"), engine.hash, str(library), str(sbin)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout), library

    return run


def test_the_same_sources_give_the_same_bytes_and_others_another_hash(sources, sandbox):
    first = delivery.engine.__wrapped__(sources)
    for path in sources.rglob("*"):
        os.utime(path, (1, 1))
    assert delivery.engine.__wrapped__(sources) == first
    with tarfile.open(fileobj=io.BytesIO(first.archive)) as tar:
        assert tar.getnames() == ["engine/cli.py", "engine/deep/part.py"]
    (sources / "deep" / "part.py").rename(sources / "deep" / "parts.py")
    assert delivery.engine.__wrapped__(sources).hash != first.hash


def test_an_incomplete_collection_says_so(sandbox):
    with pytest.raises(FileNotFoundError, match="the collection is incomplete"):
        delivery.engine.__wrapped__(sandbox)


def test_installed_as_plain_files_with_bytecode_and_no_other_change(sources, install, sandbox):
    place = sandbox / "host"
    (place / "lib").mkdir(parents=True)
    (place / "sbin").mkdir()
    for folder in (place / "lib", place / "sbin"):
        os.utime(folder, ns=(5, 123456789))
    engine = delivery.engine.__wrapped__(sources)
    rc, answer, library = install(engine)
    assert (rc, answer["engine"]) == (0, engine.hash)
    assert [(place / name).stat().st_mtime_ns for name in ("lib", "sbin")] == [123456789, 123456789]
    home = library / engine.hash
    assert (library / "current").readlink() == Path(engine.hash)
    assert (place / "sbin" / "acidctl").resolve() == home / "acidctl"
    assert (home / "acidctl").read_text().startswith(f"#!{answer['python']} -IS\n")
    assert len(list(home.rglob("*.pyc"))) == 2
    assert all(path.stat().st_mode & 0o022 == 0 for path in home.rglob("*"))
    assert subprocess.run(["sha256sum", "--quiet", "-c", "MANIFEST"], cwd=home, check=False).returncode == 0
    os.utime(home / "engine" / "cli.py", (0, 0))
    subprocess.run([home / "acidctl", "x"], check=True, stdout=subprocess.DEVNULL)
    assert len(list(home.rglob("*.pyc"))) == 2  # bytecode is used whatever the times say, and none is written


def test_installed_again_only_when_it_is_not_whole(sources, install):
    engine = delivery.engine.__wrapped__(sources)
    library = install(engine)[2]
    home = library / engine.hash
    number = (home / "MANIFEST").stat().st_ino
    install(engine)
    assert (home / "MANIFEST").stat().st_ino == number
    for damage in (
        lambda: (home / "engine" / "cli.py").write_text(CLI + "# changed\n"),
        lambda: (home / "engine" / "more.py").write_text("x = 1\n"),
        (home / "engine" / "deep" / "part.py").unlink,
        lambda: (home / "engine" / "cli.py").chmod(0o666),
    ):
        damage()
        assert install(engine)[0] == 0
        assert subprocess.run(["sha256sum", "--quiet", "-c", "MANIFEST"], cwd=home, check=False).returncode == 0
        assert not (home / "engine" / "more.py").exists()
    assert sorted(path.name for path in library.iterdir()) == sorted([engine.hash, "current"])


def test_a_source_that_this_python_cannot_compile_is_named_and_nothing_is_installed(sources, install):
    (sources / "deep" / "part.py").write_text("x = = 1\n")
    rc, answer, library = install(delivery.engine.__wrapped__(sources))
    assert rc != 0
    assert "engine/deep/part.py does not compile under /usr/bin/python3" in answer["error"]["msg"]
    assert list(library.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside.py", "/tmp/outside.py"])
def test_an_archive_with_a_path_that_leads_out_is_refused(sources, install, name):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    rc, answer, library = install(delivery.engine.__wrapped__(sources), raw.getvalue())
    assert rc != 0
    assert "no plain file of the engine" in answer["error"]["msg"]
    assert [path.name for path in library.iterdir()] == []


def test_the_hosts_own_error_at_install_is_passed_on(sources, install):
    (sources / "cli.py").write_text(
        'def main(argv):\n    print(\'{"error": {"class": "not-root", "msg": "no", "hint": ""}}\')\n    return 12\n'
    )
    rc, answer, _library = install(delivery.engine.__wrapped__(sources))
    assert (rc, answer["error"]["class"]) == (12, "not-root")


def test_an_old_python_says_that_it_is_old():
    older = f"import sys; sys.version_info = (3, 8, 18); exec({delivery.PROBE!r})"
    done = subprocess.run([PYTHON, "-c", older, "named"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "acid-python: named: is Python 3.8, and 3.9 is the oldest that will do\n"
    ast.parse(delivery.PROBE, feature_version=(3, 4))  # an old parser must come as far as that comparison


def test_the_first_python_that_will_do_is_taken_and_the_others_are_named(sandbox):
    mine = sandbox / "python-of-a-user"
    mine.write_bytes(Path(PYTHON).resolve().read_bytes())
    mine.chmod(0o777)
    script = delivery._script([str(mine), "/nonexistent/python"], installer="i", archive="a", engine_hash="h")
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == delivery.NO_PYTHON
    error = delivery._no_python(done.stderr)
    assert error.kind == "missing-python"
    assert f"{mine}: can be changed by others than root" in error.msg
    assert delivery._no_python("").kind == "no-python"
    done = subprocess.run(
        ["/bin/sh", "-c", delivery._script([str(mine), PYTHON], installer="/nonexistent.py", archive="a", engine_hash="h")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "can't open file '/nonexistent.py'" in done.stderr
