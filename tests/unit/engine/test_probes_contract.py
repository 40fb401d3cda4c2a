# SPDX-License-Identifier: GPL-3.0-or-later
"""What every probe has to keep, for each one in the registry. On this machine, of which nothing is changed: nothing has changed on it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from engine.probes import etc
from engine.probes.base import NOTHING, Circumstances, Probe
from engine.probes.choice import OwnCommands
from engine.probes.own import Own
from engine.probes.registry import AFTER_FILES, BEFORE_FILES, NAMES, Probes

OWN = "own"
TOP = Path(__file__).resolve().parents[3]


@pytest.fixture(params=[*NAMES, OWN])
def probe(request, sandbox: Path, monkeypatch) -> Probe:
    monkeypatch.setattr(etc.Etc.__init__, "__kwdefaults__", {**etc.Etc.__init__.__kwdefaults__, "state": str(sandbox / "etc")})
    if request.param == OWN:
        return Own(OwnCommands("own", ("printf", r"\377\n"), ("cat",)))
    (found,) = Probes([request.param]).before_files()
    return found


def captured(probe: Probe) -> dict:
    return json.loads(json.dumps(probe.capture()))


def test_it_says_whether_it_applies(probe: Probe) -> None:
    why = probe.check()
    assert why == "" or re.fullmatch(r"[A-Z].*\.", why), "a sentence"


def test_an_image_is_json_and_equals_itself(probe: Probe) -> None:
    if not probe.check():
        image = captured(probe)
        assert probe.compare(image, captured(probe)) == []
        assert probe.compare(image, captured(probe), Circumstances(left=image)) == []


def test_nothing_is_done_where_nothing_has_changed(probe: Probe) -> None:
    if probe.name in ("systemd", "service_directories"):
        return  # systemd reads its files again in any case; the host tests look at it
    if not probe.check():
        image = captured(probe)
        for circumstances in (Circumstances(), Circumstances(windows=((1, 2),)), Circumstances(left=image), Circumstances(rebooted=True)):
            for half in (probe.before_files, probe.after_files):
                assert half(image, circumstances) == NOTHING


def test_another_instance_understands_the_image(probe: Probe) -> None:
    """The agent that captured may be dead by the time of the undo."""
    if probe.name != OWN and not probe.check():
        image = captured(probe)
        (other,) = Probes([probe.name]).before_files()
        assert other.compare(image, captured(other)) == []


def test_discarding_keeps_what_is_kept(probe: Probe) -> None:
    if not probe.check():
        image = captured(probe)
        probe.discard([image])
        probe.discard([])
        assert probe.compare(image, captured(probe)) == []


def cpu_time() -> float:
    """Its own and its children's: what others do beside it is no matter."""
    return sum(os.times()[:4])


def test_capturing_is_cheap(probe: Probe) -> None:
    if not probe.check():
        probe.capture()
        start = cpu_time()
        probe.capture()
        assert cpu_time() - start < 2.0, "far from what is wanted, on any machine"


def test_every_probe_is_registered_in_both_halves_and_documented() -> None:
    assert set(BEFORE_FILES) == set(AFTER_FILES)
    assert len(NAMES) == len(BEFORE_FILES)
    page = (TOP / "docs" / "probes.md").read_text()
    assert [name for name in NAMES if f"| `{name}` |" not in page] == []
    files = {path.stem for path in (TOP / "plugins/module_utils/engine/probes").glob("*.py")}
    assert {cls.__module__.rpartition(".")[2] for cls in BEFORE_FILES} <= files
