# SPDX-License-Identifier: GPL-3.0-or-later
"""What forbids a transaction on a host, as far as it can be asked without one (tests/host/test_bad_input.py has the rest)."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from engine import health
from engine.errors import EngineTampered, KernelTooOld


@pytest.mark.parametrize("release", ["4.18.0-553.el8_10.x86_64", "5.4.0-200-generic", "5.9.16", "3.10.0-1160.el7", "2.6.32"])
def test_an_old_kernel_is_named_with_what_to_do(release: str) -> None:
    with pytest.raises(KernelTooOld) as raised:
        health.check_kernel(release, "x86_64")
    assert release in raised.value.msg
    assert "5.10" in raised.value.msg
    assert "acid_transaction: false" in raised.value.hint


@pytest.mark.parametrize(
    "release", ["5.10.0-32-amd64", "5.14.0-503.el9.x86_64", "5.15.0-1.rc1", "6.1.0", "6.18.44-fc-v657", "10.0-rc1", "5.10+"]
)
def test_kernels_that_will_do(release: str) -> None:
    for machine in ("x86_64", "aarch64"):
        health.check_kernel(release, machine)


def test_a_machine_whose_calls_nobody_knows() -> None:
    with pytest.raises(KernelTooOld, match=r"riscv64.*x86_64 and aarch64"):
        health.check_kernel("6.1.0", "riscv64")


def engine(folder: Path) -> Path:
    (folder / "engine").mkdir()
    lines = []
    for name in ("engine/one.py", "engine/two.py", "acidctl"):
        (folder / name).write_text(f"# {name}\n", encoding="ascii")
        os.chmod(folder / name, 0o644)
        lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n")
    (folder / "MANIFEST").write_text("".join(lines), encoding="ascii")
    return folder


def test_an_engine_as_it_was_installed(sandbox: Path) -> None:
    health.check_engine(str(engine(sandbox)))


@pytest.mark.parametrize("spoil", ["change", "remove", "loosen", "give away"])
def test_an_engine_that_somebody_changed(sandbox: Path, spoil: str) -> None:
    path = engine(sandbox) / "engine" / "two.py"
    if spoil == "change":
        path.write_text("import os\n", encoding="ascii")
    elif spoil == "remove":
        path.unlink()
    elif spoil == "loosen":
        os.chmod(path, 0o666)
    else:
        os.chown(path, 65534, 65534)
    with pytest.raises(EngineTampered) as raised:
        health.check_engine(str(sandbox))
    assert str(path) in raised.value.msg
    assert str(sandbox) in raised.value.hint


def test_an_installed_engine_without_its_list(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing could be told of the rest. One that was never installed, a developer's, has none."""
    home = engine(sandbox)
    (home / "MANIFEST").unlink()
    health.check_engine(str(home))
    monkeypatch.setattr(health, "LIBRARY", str(home.parent))
    with pytest.raises(EngineTampered) as raised:
        health.check_engine(str(home))
    assert str(home / "MANIFEST") in raised.value.msg
    assert str(home) in raised.value.hint
