# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Callback acid.host.plan: as the stdout callback, it makes ansible-playbook tell the plan instead of running it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: plan
type: stdout
short_description: Says how each task would be undone, and runs nothing
version_added: 0.1.0
author:
  - The acid.host authors (@acid-host)
description:
  - With C(ANSIBLE_STDOUT_CALLBACK=acid.host.plan), C(ansible-playbook) lists for each task how it would be undone, by the trace,
    probes or a compensation, or why it could not be. No task is run, and no host is asked for anything.
  - Ansible does not go on without its stdout callback, so where this one cannot be loaded, nothing is run either. That is why the playbook
    C(acid.host.plan) uses it. With P(acid.host.transaction#callback) enabled, C(ACID_PLAN=1) does the same.
options:
  irreversible:
    description: With V(deny) the exit code is 2 where something could not be undone.
    type: str
    choices:
      - allow
      - warn
      - deny
    default: warn
    ini:
      - section: acid
        key: irreversible
    env:
      - name: ACID_IRREVERSIBLE
  irreversible_table:
    description: As O(acid.host.transaction#callback:irreversible_table).
    type: pathlist
    default: []
    ini:
      - section: acid
        key: irreversible_table
    env:
      - name: ACID_IRREVERSIBLE_TABLE
"""

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.acid.host.plugins.plugin_utils.configuration import Settings
from ansible_collections.acid.host.plugins.plugin_utils.hooks import Hooks
from ansible_collections.acid.host.plugins.plugin_utils.options import Options, override


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Nothing is run, so there is nothing to call back for."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "acid.host.plan"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        Hooks(defaults=self._defaults, settings=self._settings, show=lambda ended, rehearsed: None).install()

    def _defaults(self) -> Options:
        return override(Options(), {"irreversible": self.get_option("irreversible")}, where="[acid] or ACID_*")

    def _settings(self) -> Settings:
        return Settings(tuple(map(str, self.get_option("irreversible_table") or [])), plan=True)
