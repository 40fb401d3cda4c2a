# SPDX-License-Identifier: GPL-3.0-or-later
"""FAKE, see cli.py."""

from __future__ import annotations

from .cli import main as fake


def main(argv):
    return fake(["exec", *argv])
