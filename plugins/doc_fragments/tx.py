# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the documentation of every tx_* module says alike."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
requirements:
  - Linux 5.10 or newer on the host
  - Python 3.9 or newer with C(sqlite3) and C(ctypes) on the host
  - root on the host, by login or by the play's own become settings
attributes:
  action:
    description: Runs on the controller and calls the engine that is installed on the host; no module is sent.
    support: full
  platform:
    description: Operating systems of the hosts.
    support: full
    platforms: linux
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  check_mode:
    description: Can run in check mode.
    support: full
    details: Changes nothing, begins nothing, and says so.
  diff_mode:
    description: Shows what a task changed, in diff mode.
    support: none
    details: The host's own record of a transaction is read by C(acidctl diff).
seealso:
  - plugin: acid.host.transaction
    plugin_type: callback
    description: Makes every task of every play a step, without these modules.
"""
