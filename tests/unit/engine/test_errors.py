# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from engine import errors

CLASSES = sorted(errors.BY_KIND.values(), key=lambda cls: cls.exit_code)


def test_each_class_has_a_kind_and_an_exit_code_of_its_own() -> None:
    declared = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.AcidError)]
    assert len(CLASSES) == len(declared) >= 21
    assert len({cls.exit_code for cls in CLASSES}) == len(CLASSES)
    assert [cls.__name__ for cls in CLASSES if not (10 <= cls.exit_code <= 60 or cls is errors.StepRefused)] == []
    assert errors.StepRefused.exit_code == 97


def test_the_page_for_operators_names_each() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text()
    rows = {cls.kind: f"| {cls.exit_code} | `{cls.kind}` | {(cls.__doc__ or '').splitlines()[0]} |\n" for cls in CLASSES}
    assert [kind for kind, row in rows.items() if row not in page] == []


@pytest.mark.parametrize("cls", CLASSES)
def test_comes_back_from_json_as_it_was(cls: type[errors.AcidError]) -> None:
    data = cls("It broke.", hint="Mend it.").to_json()
    assert data == {"class": cls.kind, "msg": "It broke.", "hint": "Mend it."}
    back = errors.from_json(data)
    assert back.__class__ is cls
    assert str(back) == "It broke. Mend it."


def test_a_class_of_a_newer_engine_keeps_its_name() -> None:
    back = errors.from_json({"class": "moon-phase", "msg": "Full.", "hint": "Wait."})
    assert back.__class__ is errors.AcidError
    assert "moon-phase" in back.msg
    assert back.hint == "Wait."
