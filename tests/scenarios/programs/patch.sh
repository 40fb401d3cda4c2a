# SPDX-License-Identifier: GPL-3.0-or-later
set -e
cd /srv/w/patch
patch -p1 -b < ../change.patch
