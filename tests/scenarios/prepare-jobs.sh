#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The state that whole jobs (plays/jobs) start from: a server that somebody set up by hand some years ago. Runs as root on a lab host, before the snapshot.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8

# Ansible has been here before.
install -d -m 0700 /root/.ansible /root/.ansible/tmp

# --- people, some of whom should have gone ----------------------------------------------------------------------------------
groupadd -g 1600 ops
useradd -m -u 1501 -s /bin/bash -G ops anna
useradd -m -u 1502 -s /bin/bash -G ops former
useradd -m -u 1503 -s /bin/bash guest
for u in anna former guest; do
    install -d -m 0755 -o "$u" -g "$u" "/home/$u/.config"
    for i in $(seq 1 15); do echo "note $i of $u" > "/home/$u/note-$i.txt"; done
    chown -R "$u:$u" "/home/$u"
done
echo 'former ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/former; chmod 0440 /etc/sudoers.d/former
echo 'umask 000' > /etc/profile.d/old-umask.sh
printf '127.0.0.1 localhost\n10.9.9.9 db.old.example.org db\n' > /etc/hosts

# --- things that a hardening finds ------------------------------------------------------------------------------------------
mkdir -p /srv/share /opt/tools
for i in $(seq 1 20); do echo "#!/bin/sh" > "/opt/tools/tool-$i"; chmod 0777 "/opt/tools/tool-$i"; done
cp /bin/true /opt/tools/helper; chmod 4755 /opt/tools/helper
cat > /etc/systemd/system/telemetry.service <<'U'
[Unit]
Description=Nobody knows what this is for
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
U
systemctl daemon-reload
systemctl enable -q --now telemetry.service
printf '30 2 * * * root /opt/tools/tool-1\n' > /etc/cron.d/tools
printf 'net.ipv4.conf.all.accept_redirects = 1\n' > /etc/sysctl.d/60-old.conf

# --- the application's repository -------------------------------------------------------------------------------------------
export GIT_AUTHOR_NAME=Lab GIT_AUTHOR_EMAIL=lab@example.org GIT_COMMITTER_NAME=Lab GIT_COMMITTER_EMAIL=lab@example.org
git config --system --add safe.directory '*'
work=$(mktemp -d)
git -c init.defaultBranch=main init -q "$work"
cd "$work"
mkdir -p shop static migrations
: > shop/__init__.py
cat > shop/__main__.py <<'PY'
"""A shop: answers with its name, writes an access log and counts in its database."""
import http.server
import os
import sqlite3
import sys

import greeter

CONFIG = dict(line.split("=", 1) for line in open(os.environ["SHOP_CONFIG"]).read().split() if "=" in line)


def migrate():
    with sqlite3.connect(CONFIG["DATABASE"]) as database:
        for name in sorted(os.listdir(CONFIG["MIGRATIONS"])):
            database.executescript(open(os.path.join(CONFIG["MIGRATIONS"], name)).read())


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with sqlite3.connect(CONFIG["DATABASE"]) as database:
            database.execute("INSERT INTO visits(path) VALUES (?)", (self.path,))
        body = b"shop %s by %s\n" % (CONFIG["NAME"].encode(), greeter.__name__.encode())
        self.send_response(200 if self.path in ("/", "/health") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text, *values):
        with open(CONFIG["LOG"], "a") as log:
            log.write(text % values + "\n")


if __name__ == "__main__":
    if "migrate" in sys.argv:
        migrate()
    else:
        http.server.ThreadingHTTPServer(("127.0.0.1", int(CONFIG["PORT"])), Handler).serve_forever()
PY
echo 'CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY, path TEXT NOT NULL);' > migrations/001-visits.sql
echo 'greeter==1.0' > requirements.txt
for i in $(seq 1 30); do echo "<p>$i</p>" > "static/page-$i.html"; done
git add -A; git commit -qm 'first'; git tag v1.0
echo 'CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, what TEXT);' > migrations/002-orders.sql
echo 'greeter==2.0' > requirements.txt
rm static/page-1.html
git add -A; git commit -qm 'second'; git tag v1.1
cd /
git clone -q --bare "$work" /srv/git/shop.git
rm -rf "$work"
sync
