# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of one attribute each, by which the oracle proves itself: what is done, what undoes it, and what exactly must be found."""

from __future__ import annotations

from dataclasses import dataclass

TOP = "/opt/plant"

# keep DIR COMMAND...: the command, and the directory's mtime as before. again DIR: the directory's tree as it was when saved.
SHELL = r"""
set -eu
cd /opt/plant 2>/dev/null || true
keep() { kept=$1; shift; when=$(stat -c %y "$kept"); "$@"; touch -h -d "$when" "$kept"; }
same() { same=$1; shift; at=$(stat -c %y "$same"); "$@"; touch -h -d "$at" "$same"; }
again() { rsync -aHAX --checksum --delete "/opt/saved$1/" "$1/"; }
"""

PREPARE = r"""
mkdir -p /opt/plant /opt/saved/var/lib
cd /opt/plant
printf 'some content\n' > file
printf 'more content\n' > owned
for name in one two three; do [ -e linked-one ] && ln linked-one linked-$name || echo linked > linked-$name; done
ln -s file symlink
mknod device c 1 3
mkfifo fifo
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
truncate -s 4M sparse
printf end >> sparse
echo x > with-xattr; setfattr -n user.colour -v blue with-xattr
echo x > with-acl; setfacl -m u:plain:r,m::rw with-acl
mkdir with-default-acl; setfacl -d -m u:plain:r with-default-acl
cp /usr/bin/true with-capability; setcap cap_net_raw=ep with-capability
echo x > flagged
mkdir directory; echo x > directory/inner
python3 -c 'open(b"odd-\xff\n", "w").close()'
mkdir bound
: > /var/log/pacman.log
sync
cp -a /etc /opt/saved/etc
cp -a /var/lib/dpkg /var/lib/apt /var/lib/pacman /var/lib/systemd /opt/saved/var/lib/
"""


@dataclass(frozen=True)
class Plant:
    """expect: 'kind name: field, field' for a change, 'kind name: added' or 'kind name: removed'. also: regular expression of paths that
    cannot help changing with it."""

    name: str
    do: str
    undo: str
    expect: tuple[str, ...]
    also: str = "(?!)"


def _path(name: str, fields: str) -> str:
    return f"path {TOP}/{name}: {fields}"


FILES = (
    Plant(
        "content, same size and mtime",
        "same file sh -c \"printf 'SOME content\\n' > file\"",
        "same file sh -c \"printf 'some content\\n' > file\"",
        (_path("file", "sha256"),),
    ),
    Plant(
        "one nanosecond",
        "touch -d '2020-01-01 00:00:00.000000001' owned",
        "touch -d '2020-01-01 00:00:00.000000000' owned",
        (_path("owned", "mtime"),),
    ),
    Plant("mode bit", "chmod g+w file", "chmod g-w file", (_path("file", "mode"),)),
    Plant("set-user-id bit", "chmod u+s file", "chmod u-s file", (_path("file", "mode"),)),
    Plant("sticky directory", "chmod +t directory", "chmod -t directory", (_path("directory", "mode"),)),
    Plant("uid", "chown plain owned", "chown root owned", (_path("owned", "uid"),)),
    Plant("gid", "chgrp plain owned", "chgrp root owned", (_path("owned", "gid"),)),
    Plant("owner of a symlink", "chown -h plain symlink", "chown -h root symlink", (_path("symlink", "uid"),)),
    Plant(
        "mtime of a symlink",
        "touch -h -d '2020-01-01 00:00:00.5' symlink",
        "touch -h -d '2020-01-01' symlink",
        (_path("symlink", "mtime"),),
    ),
    Plant(
        "xattr value",
        "setfattr -n user.colour -v grey with-xattr",
        "setfattr -n user.colour -v blue with-xattr",
        (_path("with-xattr", "xattrs"),),
    ),
    Plant("xattr added", "setfattr -n user.shape -v round file", "setfattr -x user.shape file", (_path("file", "xattrs"),)),
    Plant(
        "trusted xattr", "setfattr -n trusted.seal -v 1 directory", "setfattr -x trusted.seal directory", (_path("directory", "xattrs"),)
    ),
    Plant("ACL", "setfacl -m u:plain:w,m::rw with-acl", "setfacl -m u:plain:r,m::rw with-acl", (_path("with-acl", "xattrs"),)),
    Plant(
        "default ACL",
        "setfacl -d -m u:plain:rw with-default-acl",
        "setfacl -d -m u:plain:r with-default-acl",
        (_path("with-default-acl", "xattrs"),),
    ),
    Plant(
        "capability",
        "setcap cap_net_raw=eip with-capability",
        "setcap cap_net_raw=ep with-capability",
        (_path("with-capability", "xattrs"),),
    ),
    Plant("immutable", "chattr +i flagged", "chattr -i flagged", (_path("flagged", "flags"),)),
    Plant("append only", "chattr +a flagged", "chattr -a flagged", (_path("flagged", "flags"),)),
    Plant("flag of a directory", "chattr +d directory", "chattr -d directory", (_path("directory", "flags"),)),
    Plant(
        "hard link broken",
        "keep . sh -c 'cp -p linked-two .copy; mv .copy linked-two'",
        "keep . ln -f linked-one linked-two",
        (_path("linked-one", "links, nlink"), _path("linked-three", "links, nlink"), _path("linked-two", "links, nlink")),
    ),
    Plant(
        "symlink target",
        "keep . sh -c 'ln -sfn owned symlink'; touch -h -d '2020-01-01' symlink",
        "keep . sh -c 'ln -sfn file symlink'; touch -h -d '2020-01-01' symlink",
        (_path("symlink", "target"),),
    ),
    Plant(
        "device number",
        "keep . sh -c 'rm device; mknod device c 1 5; touch -d 2020-01-01 device'",
        "keep . sh -c 'rm device; mknod device c 1 3; touch -d 2020-01-01 device'",
        (_path("device", "device"),),
    ),
    Plant("empty file added", "keep . touch empty", "keep . rm empty", (_path("empty", "added"),)),
    Plant(
        "file removed",
        "keep directory rm directory/inner",
        "keep directory sh -c 'echo x > directory/inner'; touch -d 2020-01-01 directory/inner",
        (_path("directory/inner", "removed"),),
    ),
    Plant(
        "fifo becomes file",
        "keep . sh -c 'rm fifo; touch -d 2020-01-01 fifo'",
        "keep . sh -c 'rm fifo; mkfifo fifo; touch -d 2020-01-01 fifo'",
        (_path("fifo", "blocks, sha256, size, type"),),
    ),
    Plant(
        "socket removed",
        "keep . rm socket",
        "keep . python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"socket\")'; touch -d 2020-01-01 socket",
        (_path("socket", "removed"),),
    ),
    Plant(
        "hole filled with zeros",
        "same sparse dd if=/dev/zero of=sparse bs=64k count=1 seek=8 conv=notrunc status=none; sync sparse",
        "same sparse fallocate -p -o 524288 -l 65536 sparse; sync sparse",
        (_path("sparse", "blocks"),),
    ),
    Plant(
        "mtime of a directory",
        "touch -d '2020-01-01 00:00:00.25' directory",
        "touch -d 2020-01-01 directory",
        (_path("directory", "mtime"),),
    ),
    Plant(
        "odd name removed",
        "keep . sh -c 'rm odd-*'",
        'keep . python3 -c \'open(b"odd-\\xff\\n", "w").close()\'; touch -d 2020-01-01 odd-*',
        (_path("odd-\udcff\n", "removed"),),
    ),
)

DPKG_FILES = r"/var/lib/(dpkg(/.*)?|apt/extended_states)|/var/lib/apt"
ETC = r"/etc(/(passwd|group|shadow|gshadow|subuid|subgid)-?)?|/etc/\.pwd\.lock"
SYSTEMD = r"/etc/systemd/system(/.*)?|/var/lib/systemd/deb-systemd-helper-.*"

SYSTEM = (
    Plant("dpkg hold", "apt-mark -qq hold cron", "again /var/lib/dpkg", ("apt-hold cron: added", "dpkg cron:ARCH: want"), DPKG_FILES),
    Plant(
        "apt auto mark", "apt-mark -qq auto cron", "again /var/lib/apt", ("apt-auto cron: added", "apt-manual cron: removed"), DPKG_FILES
    ),
    Plant(
        "diversion",
        "dpkg-divert --quiet --no-rename --divert /opt/x --add /opt/y",
        "again /var/lib/dpkg",
        ("diversions local diversion of /opt/y to /opt/x: added",),
        DPKG_FILES,
    ),
    Plant(
        "pacman reason",
        "pacman -q -D --asdeps pac-base > /dev/null",
        "again /var/lib/pacman",
        ("pacman pac-base: reason", "command pacman-explicit: exit code"),
        r"/var/lib/pacman(/local/.*)?",
    ),
    Plant("user added", "useradd -M -s /bin/false planted", "again /etc", ("passwd planted: added", "group planted: added"), ETC),
    Plant("group member", "gpasswd -a plain adm > /dev/null", "again /etc", ("group adm: row",), ETC),
    Plant(
        "unit enabled",
        "systemctl enable -q logrotate.timer",
        "systemctl disable -q logrotate.timer; again /etc; systemctl daemon-reload",
        ("unit-file logrotate.timer: state", "unit timers.target: Wants"),
        SYSTEMD,
    ),
    Plant(
        "unit masked",
        "systemctl mask -q fstrim.service",
        "systemctl unmask -q fstrim.service; again /etc; systemctl daemon-reload",
        ("unit-file fstrim.service: state",),
        SYSTEMD,
    ),
    Plant(
        "unit stopped",
        "systemctl stop cron",
        "systemctl start cron",
        ("unit cron.service: removed", "process cron.service cron uid=0: removed"),
    ),
    Plant(
        "unit failed",
        "systemd-run -q --unit=planted -p RemainAfterExit=yes --wait false || true",
        "systemctl reset-failed planted",
        ("unit planted.service: added",),
    ),
    Plant(
        "drop-in",
        "mkdir /etc/systemd/system/cron.service.d; printf '[Service]\\nEnvironment=PLANT=1\\n' > /etc/systemd/system/cron.service.d/x.conf; "
        "systemctl daemon-reload",
        "again /etc; systemctl daemon-reload",
        ("unit cron.service: DropInPaths, Environment",),
        SYSTEMD,
    ),
    Plant(
        "unit file changed behind PID 1's back",
        "mkdir /etc/systemd/system/cron.service.d; printf '[Service]\\nEnvironment=PLANT=1\\n' > /etc/systemd/system/cron.service.d/x.conf",
        "again /etc; systemctl daemon-reload",
        ("unit cron.service: NeedDaemonReload",),
        SYSTEMD,
    ),
    Plant(
        "left running",
        "systemd-run -q --scope --unit=planted setsid -f sleep 1000 < /dev/null > /dev/null 2>&1",
        "systemctl stop planted.scope",
        ("unit planted.scope: added", "process planted.scope sleep uid=0: added"),
    ),
    Plant("mount", "mount -t tmpfs -o size=1m planted /mnt", "umount /mnt", ("mount /mnt#1: added", "unit mnt.mount: added"), "/mnt"),
    Plant(
        "bind mount",
        "mount --bind /opt/plant/directory bound",
        "umount bound",
        ("mount /opt/plant/bound#1: added", "unit opt-plant-bound.mount: added"),
        "/opt/plant/bound(/inner)?|/opt/plant/directory/inner",
    ),
    Plant(
        "mount option",
        "mount -o remount,nodev,nosuid,noexec /dev/shm",
        "mount -o remount,nodev,nosuid,exec /dev/shm",
        ("mount /dev/shm#1: options",),
    ),
    Plant("hostname", "hostname planted", "hostname $(cat /etc/hostname)", ("hostname kernel: name",)),
    Plant(
        "nftables rule",
        "nft add table inet planted; nft add chain inet planted c; nft add rule inet planted c tcp dport 1 drop",
        "nft delete table inet planted",
        ("nftables table inet planted: added",),
    ),
    Plant(
        "sysctl",
        "sysctl -qw net.ipv4.tcp_keepalive_time=7100",
        "sysctl -qw net.ipv4.tcp_keepalive_time=7200",
        ("sysctl net.ipv4.tcp_keepalive_time: value",),
    ),
    Plant(
        "address",
        "ip addr add 192.0.2.7/32 dev lo",
        "ip addr del 192.0.2.7/32 dev lo",
        (
            "address lo 192.0.2.7/32: added",
            'route-ipv4 {"dev": "lo", "dst": "192.0.2.7", "flags": [], "prefsrc": "192.0.2.7", "protocol": "kernel", '
            '"scope": "host", "table": "local", "type": "local"}: added',
        ),
    ),
    Plant(
        "route",
        "ip route add 198.51.100.0/24 dev lo",
        "ip route del 198.51.100.0/24 dev lo",
        ('route-ipv4 {"dev": "lo", "dst": "198.51.100.0/24", "flags": [], "scope": "link"}: added',),
    ),
    Plant(
        "rule",
        "ip rule add from 192.0.2.0/24 table 77 priority 1000",
        "ip rule del priority 1000",
        ('rule-ipv4 {"priority": 1000, "src": "192.0.2.0", "srclen": 24, "table": "77"}: added',),
    ),
    Plant(
        "link",
        "ip link set host0 mtu 1400",
        "ip link set host0 mtu 1500",
        ("link host0: mtu", "sysctl net.ipv6.conf.host0.mtu: value"),
    ),
    Plant(
        "permanent neighbour",
        "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:01 dev host0 nud permanent",
        "ip neigh del 192.0.2.9 dev host0",
        ('neighbour {"dev": "host0", "dst": "192.0.2.9", "lladdr": "02:00:00:00:00:01", "state": ["PERMANENT"]}: added',),
    ),
)
