# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""acidctl, the host command. `exec` comes first and alone: it starts with every task and must load next to nothing."""

from __future__ import annotations


def main(argv: list[str]) -> int:
    if argv[:1] == ["exec"]:
        from .. import exec as shim

        return shim.main(argv[1:])
    from . import verbs

    return verbs.main(argv)
