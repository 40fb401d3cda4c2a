# SPDX-License-Identifier: GPL-3.0-or-later
set -e
cd /srv/w/npm
npm install --offline --no-audit --no-fund /srv/repo/npm/acid-npm-1.0.0.tgz
