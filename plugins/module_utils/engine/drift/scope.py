# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where drift is nobody's fault."""

from __future__ import annotations

#: Everybody writes here: what the transaction made goes in any case, and a copy of what others wrote into it is kept.
COMMON_GROUND = (b"/var/log", b"/var/cache", b"/run", b"/tmp", b"/var/tmp")
