# SPDX-License-Identifier: GPL-3.0-or-later
set -e
cd /srv/w/rsync
rsync -a --delete from/ to/
rsync -a --inplace --ignore-times from/ to/
rsync -aHAX --numeric-ids to/ copy/
