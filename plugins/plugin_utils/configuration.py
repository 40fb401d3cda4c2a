# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The defaults of a transaction's options from the [acid] section of ansible.cfg and from ACID_* variables.

ansible-core reads the documented keys by itself and says nothing about others, so a mistyped key is looked for here.
"""

from __future__ import annotations

import difflib
import os
from typing import Any, NamedTuple

from ansible import constants as C
from ansible.utils.display import Display

from .options import NAMES, OptionError, Options, override

display = Display()

SECTION = "acid"
CONFIGURABLE = ("confirm_timeout", "durability", "on_drift", "irreversible", "exclude", "probes", "rehearse", "retention")
# Of the run, and not of a play.
OF_THE_RUN = ("irreversible_table", "rehearsal_page")


class Settings(NamedTuple):
    """Paths on the controller."""

    irreversible_table: tuple[str, ...] = ()
    rehearsal_page: str = ""
    plan: bool = False


def settings_of(callback: Any) -> Settings:
    tables = callback.get_option("irreversible_table") or []
    return Settings(tuple(map(str, tables)), str(callback.get_option("rehearsal_page") or ""), bool(callback.get_option("plan")))


def defaults_of(callback: Any) -> Options:
    """Raises OptionError for an unknown key in [acid]."""
    _refuse_unknown_keys()
    _name_near_misses()
    return override(Options(), {name: callback.get_option(name) for name in CONFIGURABLE}, where="[acid] or ACID_*")


def _refuse_unknown_keys() -> None:
    parser = C.config._parsers.get(C.config._config_file) if C.config._config_file else None
    if parser is None or not parser.has_section(SECTION):
        return
    for key in parser.options(SECTION):
        if key not in CONFIGURABLE + OF_THE_RUN and key not in parser.defaults():
            why = "is set per play" if key in NAMES else f"is unknown; there are: {', '.join(CONFIGURABLE + OF_THE_RUN)}"
            raise OptionError(f"{C.config._config_file}: [{SECTION}] {key} {why}")


def _name_near_misses() -> None:
    """ACID_* is not ours alone, so an unknown variable is no error."""
    known = [f"ACID_{name.upper()}" for name in (*CONFIGURABLE, *OF_THE_RUN, "plan")]
    for name in os.environ:
        if name.startswith("ACID_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            if near:
                display.warning(f"The environment variable {name} is not used; did you mean {near[0]}?")
