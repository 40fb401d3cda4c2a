# SPDX-License-Identifier: GPL-3.0-or-later
set -e
setsid -f sh -c 'exec >/dev/null 2>&1 </dev/null; while :; do date +%N >> /srv/w/leftover; mv /srv/w/data/8.txt /srv/w/data/8.moved; mv /srv/w/data/8.moved /srv/w/data/8.txt; sleep 0.05; done'
sleep 0.3
