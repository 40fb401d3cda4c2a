#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs once inside the new root tree, while the image is built.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin

for user in deploy pwuser plain; do
    useradd --create-home --shell /bin/bash "$user"
done
echo 'pwuser:lab-secret' | chpasswd
for home in /root /home/deploy /home/pwuser /home/plain; do
    install -d -m 0700 "$home/.ssh"
    install -m 0600 /tmp/lab-key.pub "$home/.ssh/authorized_keys"
    chown -R --reference="$home" "$home/.ssh"
done
chmod 0440 /etc/sudoers.d/lab

# nspawn has no ttys to serve, and nothing on an idle host may change a file by itself.
systemctl mask --quiet console-getty.service getty@.service getty-pre.target systemd-ask-password-console.path \
    systemd-ask-password-wall.path systemd-tmpfiles-clean.timer
systemctl disable --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
    e2scrub_reap.service logrotate.timer man-db.timer 2>/dev/null || true
rm -f /etc/cron.d/e2scrub_all

# Directories that systemd would make as btrfs subvolumes at boot.
mkdir -p /var/lib/machines /var/lib/portables
chmod 0700 /var/lib/machines /var/lib/portables

rm -f /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/99mmdebstrap
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt/* /var/log/dpkg.log /var/log/alternatives.log /var/log/bootstrap.log
echo 'deb [trusted=yes] file:/srv/repo/apt ./' > /etc/apt/sources.list.d/lab.list
apt-get update -qq

# A repository for git, with two commits, a branch and a tag; and a pacman database with an explicit package, a dependency and a group.
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000'
git init -q -b main /tmp/git
cd /tmp/git
git config user.name lab
git config user.email lab@example.org
for number in 1 2; do
    echo "version $number" > file
    mkdir -p "d$number"
    echo "$number" > "d$number/inner"
    git add .
    git commit -q -m "commit $number"
    git tag "v$number"
done
cd /
git clone -q --bare /tmp/git /srv/repo/git/demo.git
git -C /srv/repo/git/demo.git update-server-info
pacman -Sy --noconfirm --noprogressbar pac-base > /dev/null
rm -f /var/log/pacman.log /var/cache/pacman/pkg/*

rm -f /etc/resolv.conf
: > /etc/resolv.conf
rm -rf /tmp/* /var/tmp/* /tmp/.[!.]*
