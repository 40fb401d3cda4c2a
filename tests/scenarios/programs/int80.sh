# SPDX-License-Identifier: GPL-3.0-or-later
set -e
/opt/bin/int80
