# SPDX-License-Identifier: GPL-3.0-or-later
set -e
cd /srv/w/project
make -j2 install
touch f1.c; make -s
/usr/local/bin/prog
