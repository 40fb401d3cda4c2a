# SPDX-License-Identifier: GPL-3.0-or-later
"""Planted changes of what is not (only) a file: package marks, users, units, mounts, network."""

from __future__ import annotations

from .plants import Plant

DPKG_FILES = r"/var/lib/(dpkg(/.*)?|apt/extended_states)|/var/lib/apt"
ETC = r"/etc(/(passwd|group|shadow|gshadow|subuid|subgid)-?)?|/etc/\.pwd\.lock"
SYSTEMD = r"/etc/systemd/system(/.*)?|/var/lib/systemd/deb-systemd-helper-.*"

LOCAL_ROUTE = (
    '{"dev": "lo", "dst": "192.0.2.7", "flags": [], "prefsrc": "192.0.2.7", "protocol": "kernel", '
    '"scope": "host", "table": "local", "type": "local"}'
)

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
        "mkdir /etc/systemd/system/cron.service.d; printf '[Service]\\nEnvironment=PLANT=1\\n' > /etc/systemd/system/cron.service.d/x.conf;"
        " systemctl daemon-reload",
        "again /etc; systemctl daemon-reload",
        ("unit cron.service: DropInPaths, Environment",),
        SYSTEMD,
    ),
    Plant(
        # Not a new drop-in: PID 1 knows of its directory only when something makes it look for unit files again.
        "unit file changed behind PID 1's back",
        "touch /usr/lib/systemd/system/cron.service",
        "touch -r /opt/saved/cron.service /usr/lib/systemd/system/cron.service",
        ("unit cron.service: NeedDaemonReload", "path /usr/lib/systemd/system/cron.service: mtime"),
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
            f"route-ipv4 {LOCAL_ROUTE}: added",
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
