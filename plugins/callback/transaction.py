# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Callback acid.host.transaction: installs the hooks and prints the recap. Everything else is in plugin_utils."""

from __future__ import annotations

DOCUMENTATION = r"""
name: transaction
type: notification
short_description: Makes every play a transaction on each of its hosts
version_added: 0.1.0
author:
  - The acid.host authors (@acid-host)
description:
  - While this callback is enabled, every task of every play is a step of a transaction on its host.
  - When a host fails or becomes unreachable, it is taken back to what it was before the play; the other hosts keep their changes.
  - A play turns it off with the variable C(acid_transaction=false), or sets options with C(acid_transaction) as a mapping.
  - Where a transaction cannot be had (no root, no suitable Python, a connection that cannot carry it) the host fails before its first task.
  - A play that begins with C(raw) or C(script) and gathers no facts may put Python on its hosts. Those tasks run without protection, with
    a warning, and the transaction begins with the first task that needs Python. Not with O(irreversible=deny).
  - The variable C(acid_capture) with the value V(none) on a task runs it without before-images. That counts as irreversible.
  - The variable C(acid_savepoint) on a block or task sets a savepoint before the first task that carries it; M(acid.host.tx_rollback) in a
    C(rescue) goes back to it.
  - The variable C(acid_compensate) on a task is a task, or a list of tasks, that undoes what of it is out of the host's reach.
  - A recap with one line a host is printed on stderr after the play.
  - The outcome is also in the custom stats, under the key C(acid).
notes:
  - A callback that cannot be loaded is only a warning in Ansible. A play can insist on its transaction by a first task with
    M(acid.host.tx_info) and O(acid.host.tx_info#module:required=true).
requirements:
  - ansible-core 2.19 to 2.21 on the controller
  - Linux 5.10 or newer and Python 3.9 or newer with sqlite3 and ctypes on the hosts, and root there
options:
  confirm_timeout:
    description: >-
      The lease, in seconds. A host that has not heard from the controller for so long rolls back by itself.
    type: int
    default: 300
    ini:
      - section: acid
        key: confirm_timeout
    env:
      - name: ACID_CONFIRM_TIMEOUT
  durability:
    description: >-
      V(process) survives the death of any process. V(power) survives a power cut at any point too: each before-image is on the disk before
      the change happens, which costs a write to the disk for each path that existed before.
    type: str
    choices:
      - process
      - power
    default: process
    ini:
      - section: acid
        key: durability
    env:
      - name: ACID_DURABILITY
  on_drift:
    description: >-
      What an undo does with a path that somebody else changed after the step did. V(stop) leaves it, with all that belongs together with
      it, reports it, and undoes the rest; V(force) keeps a copy aside and undoes it; V(merge) takes only the transaction's lines out of
      hosts, fstab, authorized_keys, crontabs and sudoers, and stops for all others. The password files are always merged, row by row.
    type: str
    choices:
      - stop
      - force
      - merge
    default: stop
    ini:
      - section: acid
        key: on_drift
    env:
      - name: ACID_ON_DRIFT
  irreversible:
    description: >-
      What to do about what no transaction can undo: a task delegated to a host outside the play, a module whose effects leave the host (a
      request, a container, a database, a message), a system call that writes to a disk, sets the clock or loads a kernel module.
      V(warn) names it before the play where it can be known, and in the recap. V(deny) stops before it: the task is not sent, the system
      call is refused. V(allow) says nothing in advance. A task with a compensation is not irreversible.
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
    description: >-
      YAML files with further rows for the table of modules whose effects no transaction can undo. Their rows come before those of
      the collection, so that they can also take a module out (C(effect=none)). C(docs/irreversible.md) has the keys.
    type: pathlist
    default: []
    ini:
      - section: acid
        key: irreversible_table
    env:
      - name: ACID_IRREVERSIBLE_TABLE
  rehearse:
    description: >-
      The play runs for real, what it changed is shown task by task, and each host is taken back. The exit code is the play's own. What
      cannot be undone is not let happen (as with O(irreversible=deny)), unless O(irreversible=allow).
    type: bool
    default: false
    ini:
      - section: acid
        key: rehearse
    env:
      - name: ACID_REHEARSE
  rehearsal_page:
    description: >-
      Where to write, on the controller, what a rehearsal would have changed, as one HTML page that needs nothing else. Nowhere by default.
    type: path
    ini:
      - section: acid
        key: rehearsal_page
    env:
      - name: ACID_REHEARSAL_PAGE
  plan:
    description: >-
      Runs nothing. Says for each task how it would be undone. With O(irreversible=deny) the exit code is 2 where something could not be.
    type: bool
    default: false
    env:
      - name: ACID_PLAN
  exclude:
    description: Absolute paths on the hosts that are left out of the transaction.
    type: list
    elements: str
    default: []
    ini:
      - section: acid
        key: exclude
    env:
      - name: ACID_EXCLUDE
  probes:
    description: >-
      Which kinds of run-time state are captured and restored, by name; and probes of your own, as mappings with C(name), C(capture) (a
      command that writes the state to its stdout) and C(restore) (one that reads it from stdin). A mapping with the name C(etc) has
      C(trees), further directories that daemons write. Here and in the environment a mapping is written as JSON; a play has it in
      C(acid_transaction).
    type: list
    elements: raw
    default:
      - all
    ini:
      - section: acid
        key: probes
    env:
      - name: ACID_PROBES
  retention:
    description: How long the images of a committed transaction are kept, and how much of the file system they may take.
    type: list
    elements: str
    default:
      - 7d
      - 10%
    ini:
      - section: acid
        key: retention
    env:
      - name: ACID_RETENTION
"""

from collections.abc import Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.callback import CallbackBase
from ansible_collections.acid.host.plugins.plugin_utils import recap, rehearsal, rehearsal_text, reports
from ansible_collections.acid.host.plugins.plugin_utils.configuration import defaults_of, settings_of
from ansible_collections.acid.host.plugins.plugin_utils.hooks import Hooks
from ansible_collections.acid.host.plugins.plugin_utils.options import OptionError, Options


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Thin: one object of hooks per process, and one recap per playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "acid.host.transaction"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hooks = Hooks(defaults=self._defaults, settings=lambda: settings_of(self), show=self._show)
        self._hooks.install()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._hooks.show()

    def _defaults(self) -> Options:
        try:
            return defaults_of(self)
        except OptionError as error:
            raise AnsibleError(f"No task was run: {error}") from None

    def _show(self, ended: list[reports.Report], rehearsed: list[rehearsal.Rehearsal]) -> None:
        page = settings_of(self).rehearsal_page
        self._print(rehearsal_text.title(), rehearsal_text.lines(rehearsed, page=page) if rehearsed else [])
        self._print(recap.title(), recap.lines(ended))

    def _print(self, title: str, lines: Sequence[tuple[str, str | None]]) -> None:
        if not lines:
            return
        self._display.display(f"\n{title}", stderr=True)
        for text, colour in lines:
            self._display.display(text, color=colour, stderr=True)
