# SPDX-License-Identifier: GPL-3.0-or-later
set -e
python3 -m venv /srv/w/venv
/srv/w/venv/bin/pip install -q --no-index --find-links /srv/repo/pip acid_pip
