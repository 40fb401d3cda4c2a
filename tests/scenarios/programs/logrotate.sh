# SPDX-License-Identifier: GPL-3.0-or-later
set -e
/usr/sbin/logrotate -f -s /srv/w/logrotate.state /srv/w/logrotate.conf
