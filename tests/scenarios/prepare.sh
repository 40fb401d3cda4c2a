#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The state that every scenario play starts from. Runs as root on a lab host, before the snapshot.
#   prepare.sh          the ordinary world: an application server with some years of history
#   prepare.sh big      the same, and 100,000 small files and a 2 GiB file
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8

need() { command -v "$1" >/dev/null || { echo "prepare.sh: this host has no $1: add its package to the lab image" >&2; exit 1; }; }
for tool in setfacl setcap chattr setfattr git python3 sudo dpkg crontab pacman unzip; do need "$tool"; done

numbered() { # numbered DIR COUNT PREFIX: small files with old times and different contents
    mkdir -p "$1"
    for i in $(seq 1 "$2"); do
        printf '%s %s\n' "$3" "$i" > "$1/$3-$i.txt"
        touch -d "2021-03-0$((i % 9 + 1)) 11:22:33.123456789" "$1/$3-$i.txt"
    done
}

# --- people -----------------------------------------------------------------------------------------------------------------
groupadd -g 1600 web; groupadd -g 1601 ops; groupadd -g 1602 oldgroup
usermod -a -G web deploy
usermod -a -G ops pwuser
useradd -m -u 1502 -s /bin/bash app
useradd -m -u 1504 -s /bin/bash -G oldgroup,web olduser
echo 'root:root-scenario' | chpasswd
numbered /home/olduser/mail 25 message
numbered /home/olduser/.config/app 8 setting
chown -R olduser:olduser /home/olduser
chmod 0700 /home/olduser/mail

# Ansible has been here before, as each of them.
for u in root deploy app pwuser plain; do
    home=$(getent passwd "$u" | cut -d: -f6)
    install -d -m 0700 -o "$u" -g "$u" "$home/.ansible" "$home/.ansible/tmp"
done

# --- an application with releases, configuration and services ---------------------------------------------------------------
for release in 1.0 1.1; do
    numbered "/srv/app/releases/$release/static" 20 page
    numbered "/srv/app/releases/$release/lib" 10 part
    echo "$release" > "/srv/app/releases/$release/VERSION"
done
ln -s releases/1.1 /srv/app/current
mkdir -p /srv/app/shared/log /srv/app/shared/uploads /opt/app/bin /etc/app/conf.d /etc/app/fragments /etc/app/sites
numbered /srv/app/shared/uploads 12 upload
for i in $(seq 1 200); do echo "2023-01-01T00:00:$((i % 60)) request $i"; done > /srv/app/shared/log/app.log
chown -R deploy:web /srv/app
chmod 2775 /srv/app/shared/uploads
cat > /opt/app/bin/appd <<'SH'
#!/bin/sh
# the application's daemon: says what configuration it runs with
mkdir -p /run/app
cp /etc/app/app.conf /run/app/loaded.conf
trap 'cp /etc/app/app.conf /run/app/loaded.conf' HUP
while :; do sleep 3600 & wait $!; done
SH
chmod 0755 /opt/app/bin/appd
cat > /etc/app/app.conf <<'CONF'
[server]
listen = 127.0.0.1:8080
workers = 2
debug = false

[database]
host = db1.example.org
pool = 5

[log]
level = info
path = /srv/app/shared/log/app.log
CONF
chmod 0640 /etc/app/app.conf; chgrp web /etc/app/app.conf
for i in 10 20 30; do printf '# part %s\noption_%s = 1\n' "$i" "$i" > "/etc/app/conf.d/$i-part.conf"; done
for i in 1 2 3 4; do printf 'fragment %s\n' "$i" > "/etc/app/fragments/0$i-fragment"; done
for i in $(seq 1 24); do
    printf 'server_name site%s.old.example.org\nroot /srv/www/site%s\nport 80\n' "$i" "$i" > "/etc/app/sites/site$i.conf"
    touch -d "2022-05-06 07:08:09.987654321" "/etc/app/sites/site$i.conf"
    mkdir -p "/srv/www/site$i"
    echo "<h1>site $i</h1>" > "/srv/www/site$i/index.html"
done
numbered /opt/legacy/bin 30 tool
numbered /opt/legacy/share/doc 30 doc
ln -s share/doc /opt/legacy/doc
mkdir -p /etc/profile.d /mnt/cache /mnt/shared /mnt/new
printf "# Managed by hand since 2019\nPATH=/usr/local/bin:\$PATH\n" > /etc/profile.d/site.sh

unit() { cat > "/etc/systemd/system/$1"; touch -d '2023-06-07 08:09:10.111213141' "/etc/systemd/system/$1"; }
unit app.service <<'U'
[Unit]
Description=Application
[Service]
ExecStart=/opt/app/bin/appd
ExecReload=/bin/kill -HUP $MAINPID
[Install]
WantedBy=multi-user.target
U
unit worker.service <<'U'
[Unit]
Description=Worker, not in use yet
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
U
unit legacy.service <<'U'
[Unit]
Description=Legacy daemon
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
U
unit queue@.service <<'U'
[Unit]
Description=Queue %i
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
U
unit setup.service <<'U'
[Unit]
Description=One-time setup
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
U
unit idle.timer <<'U'
[Unit]
Description=Once a year
[Timer]
OnCalendar=yearly
[Install]
WantedBy=timers.target
U
unit idle.service <<'U'
[Unit]
Description=What idle.timer runs
[Service]
Type=oneshot
ExecStart=/bin/true
U
systemctl daemon-reload
systemctl enable -q --now app.service legacy.service setup.service queue@mail.service idle.timer

# --- scheduled work, kernel settings, mounts --------------------------------------------------------------------------------
mkdir -p /etc/cron.d /etc/sysctl.d
printf 'MAILTO=""\n#Ansible: nightly\n5 3 * * * root /opt/app/bin/nightly\n' > /etc/cron.d/app
printf '#Ansible: rotate\n10 4 * * * /opt/app/bin/rotate\n' | crontab -u deploy -
printf '7 7 * * 0 /usr/bin/true weekly\n' | crontab -u olduser -
printf 'net.ipv4.ip_forward = 0\nnet.ipv4.tcp_keepalive_time = 7200\n' > /etc/sysctl.d/50-net.conf
printf 'tmpfs /mnt/cache tmpfs size=4m,mode=1777 0 0\n/srv/app/shared /mnt/shared none bind 0 0\n' >> /etc/fstab
systemctl daemon-reload
mount /mnt/cache; mount /mnt/shared

# --- a bare repository with history, and a check-out that lags behind -------------------------------------------------------
export GIT_AUTHOR_NAME=Lab GIT_AUTHOR_EMAIL=lab@example.org GIT_COMMITTER_NAME=Lab GIT_COMMITTER_EMAIL=lab@example.org
git config --system --add safe.directory '*'
work=$(mktemp -d)
git -c init.defaultBranch=main init -q "$work"
numbered "$work/pages" 25 page
echo v1 > "$work/VERSION"; git -C "$work" add -A; git -C "$work" commit -qm 'first'; git -C "$work" tag v1
numbered "$work/pages" 40 second
rm "$work"/pages/page-1.txt; echo v2 > "$work/VERSION"
git -C "$work" add -A; git -C "$work" commit -qm 'second'; git -C "$work" tag v2
git -C "$work" checkout -q -b feature; echo feature > "$work/FEATURE"; git -C "$work" add -A; git -C "$work" commit -qm 'feature'
git -C "$work" checkout -q main
git clone -q --bare "$work" /srv/git/site.git
git clone -q /srv/git/site.git /srv/checkout/site
git -C /srv/checkout/site checkout -q v1
rm -rf "$work"

# --- packages: some to upgrade, some to downgrade, some to remove -----------------------------------------------------------
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -y install acid-demo=1.1 acid-dep=1.0 acid-svc=1.0 acid-flaky=1.0 acid-mta-a acid-needs-mta acid-alt-a acid-trigger acid-old acid-setuid \
    > /dev/null
# What a daemon writes to its own data at each start is its own business, also when the undo starts it again: here it goes to /run.
mkdir -p /etc/systemd/system/acid-svc.service.d
printf '[Service]\nRuntimeDirectory=acid-svc\nEnvironment=STATE_DIRECTORY=/run/acid-svc\n' > /etc/systemd/system/acid-svc.service.d/state.conf
systemctl daemon-reload; systemctl restart acid-svc.service; rm -f /var/lib/acid-svc/*
echo 'site = prepared' >> /etc/acid-demo/demo.conf
apt-mark auto acid-dep acid-mta-a > /dev/null
mkdir -p "$(python3 -c 'import site; print(site.getsitepackages()[0])')"
# ansible.builtin.pip wants setuptools or packaging; the image has them as python3-venv's wheels alone.
python3 -c 'import setuptools' 2>/dev/null || unzip -q /usr/share/python-wheels/setuptools-*.whl -d "$(python3 -c 'import site; print(site.getsitepackages()[0])')"

# --- nasty files ------------------------------------------------------------------------------------------------------------
n=/srv/nasty; mkdir -p $n; cd $n
cp /bin/true suid-root; chmod 4755 suid-root
cp /bin/true sgid-web; chgrp web sgid-web; chmod 2755 sgid-web
cp /bin/true ping-like; setcap cap_net_raw+ep ping-like
echo 'shared with ops' > acl-file; setfacl -m u:app:rw,g:ops:r acl-file
mkdir acl-dir; setfacl -m u:app:rwx,d:u:app:rwx,d:g:ops:rx,d:o::- acl-dir; echo child > acl-dir/child
echo tagged > tagged; setfattr -n user.comment -v 'reviewed 2020' tagged; setfattr -n trusted.audit -v 1 tagged
mkdir tagged-dir; setfattr -n user.owner-team -v web tagged-dir
echo 'cannot change' > immutable; chattr +i immutable
echo 'first line' > append-only; chattr +a append-only
echo 'no dump' > nodump; chattr +d nodump
mkdir immutable-dir; echo in > immutable-dir/in; chattr +i immutable-dir
printf 'three names\n' > link-one; ln link-one link-two; mkdir links; ln link-one links/link-three
head -c 300000 /dev/urandom > big-one; ln big-one big-two; ln big-one links/big-three
python3 - <<'PY'
import os, socket, stat
with open("sparse", "wb") as f:
    for offset in (0, 7 << 20, 40 << 20):
        f.seek(offset); f.write(b"data at %d\n" % offset)
    f.truncate(64 << 20)
os.mkfifo("fifo", 0o620)
s = socket.socket(socket.AF_UNIX); s.bind("socket"); s.close(); os.chmod("socket", 0o660)
os.mknod("null-like", 0o640 | stat.S_IFCHR, os.makedev(1, 3))
os.mknod("loop-like", 0o600 | stat.S_IFBLK, os.makedev(7, 99))
for name in (b"n" * 255, b"caf\xe9-\xff\xfe.txt", b"two\nlines.txt", b"-rf", b"trailing ", "\u00fcml\u00e4ut.txt".encode(), b"quote'\"$(x).txt", b"tab\there"):
    fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644); os.write(fd, name[:20]); os.close(fd)
os.mkdir(b"d" * 255); open(b"d" * 255 + b"/f", "w").close()
deep = os.getcwd()
fd = os.open(".", os.O_RDONLY)
for i in range(30):                                  # longer than PATH_MAX in all
    os.mkdir("p%02d-" % i + "x" * 196, dir_fd=fd)
    fd, old = os.open("p%02d-" % i + "x" * 196, os.O_RDONLY, dir_fd=fd), fd
    os.close(old)
os.write(f := os.open("bottom", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd), b"deep\n"); os.close(f); os.close(fd)
PY
ln -s loop-b loop-a; ln -s loop-a loop-b; ln -s self self; ln -s /nowhere/at/all dangling
numbered rename-me 20 inside; ln -s ../rename-me rename-me/up; mkdir -p rename-me/sub/sub; echo x > rename-me/sub/sub/x
numbered becomes-link 20 inside; setfacl -m d:u:app:rx becomes-link; mkdir becomes-link/sub
numbered link-target 6 target
numbered swap-a 10 a; numbered swap-b 10 b
# Not below the deep directories: their paths are too long for touch.
find $n -xdev -maxdepth 2 -not -name immutable -not -name append-only -not -name immutable-dir -not -path '*/immutable-dir/*' \
    -exec touch -h -d '2020-02-29 12:34:56.000000789' {} +

if [ "${1:-}" = big ]; then
    python3 - <<'PY'
import os, random
for d in range(100):
    os.makedirs(f"/srv/many/d{d}")
    for i in range(1000):
        with open(f"/srv/many/d{d}/f{i}", "w") as f:
            f.write(f"{d} {i}\n")
r = random.Random(20240229)
block = [r.randbytes(1 << 20) for _ in range(16)]
with open("/srv/huge.bin", "wb") as f:
    for i in range(2048):
        f.write(i.to_bytes(8, "big") + block[i % 16][8:])
PY
fi
sync
