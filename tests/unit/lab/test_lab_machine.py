# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from acidlab.errors import LabError
from acidlab.machine import apt_options, codename, source_lines

TARGETS = """\
http://archive.example.org/debian/|bookworm|main
http://archive.example.org/debian/|bookworm|main
http://archive.example.org/debian/|bookworm-updates|main
http://archive.example.org/debian/|bookworm|contrib
http://tools.example.org/apt/|stable|main
"""


def test_sources_are_the_machines_own_suites_of_its_release() -> None:
    assert source_lines(TARGETS, "bookworm") == [
        "deb http://archive.example.org/debian/ bookworm main contrib",
        "deb http://archive.example.org/debian/ bookworm-updates main",
    ]


def test_a_machine_without_its_own_archive_is_told_what_to_do() -> None:
    with pytest.raises(LabError, match="apt-get update"):
        source_lines(TARGETS, "noble")


def test_options_that_decide_how_an_archive_is_reached() -> None:
    dump = 'APT "";\nAcquire::http::Proxy "http://proxy.example.org:3128";\nAcquire::Check-Date "false";\nAcquire::https "";\nDir "/";\n'
    assert apt_options(dump) == ['Acquire::http::Proxy "http://proxy.example.org:3128";', 'Acquire::Check-Date "false";']


def test_codename() -> None:
    assert codename('NAME="Debian"\nVERSION_CODENAME="bookworm"\n') == "bookworm"
    with pytest.raises(LabError, match="VERSION_CODENAME"):
        codename("NAME=Other\n")
