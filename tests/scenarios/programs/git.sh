# SPDX-License-Identifier: GPL-3.0-or-later
set -e
cd /srv/w/git
git checkout -q old
echo changed > f1
git commit -qam changed
git branch -D main
git reflog expire --expire=now --all
git gc -q --prune=now --aggressive
