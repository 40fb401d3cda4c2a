# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of run-time state as people make them, each of which an undo must take back to what PREPARED had made."""

from __future__ import annotations

from typing import NamedTuple

# An admin's own settings, made by hand: no file says them.
PREPARED = r"""
set -e
nft -f - <<X
table inet kept {
    set blocked { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }
    map ports { type inet_service : verdict; elements = { 22 : accept, 80 : drop } }
    counter seen { packets 5 bytes 300 }
    chain input { type filter hook input priority filter; policy accept;
        tcp dport vmap @ports; ip saddr @blocked counter name seen drop; }
    chain side { tcp dport { 1000-1010, 2000 } counter packets 3 bytes 120
        log prefix "side: " limit rate 10/minute accept comment "a \$strange { comment }"; }
}
table ip nat { chain post { type nat hook postrouting priority srcnat; ip saddr 10.99.0.0/24 masquerade; }; }
X
ip link add dum0 type veth peer name dum0p; ip link set dum0p up; ip link set dum0 up mtu 1400 txqueuelen 500 alias "the first one"
ip addr add 10.99.0.1/24 dev dum0; ip addr add 10.99.0.2/24 dev dum0 label dum0:1
ip addr add 10.99.0.3/24 dev dum0 noprefixroute
ip -6 addr add 2001:db8:1::1/64 dev dum0; ip -6 addr add 2001:db8:1::2/64 dev dum0 noprefixroute
ip route add 10.50.0.0/16 via 10.99.0.9; ip route add 10.50.0.0/16 via 10.99.0.8 metric 50; ip route add blackhole 10.51.0.0/16
ip route add 10.52.0.0/16 table 100 via 10.99.0.9 mtu 1300
ip route add 10.53.0.0/16 nexthop via 10.99.0.7 weight 2 nexthop via 10.99.0.6
ip -6 route add 2001:db8:2::/48 via 2001:db8:1::9 metric 300
ip rule add from 10.99.0.0/24 table 100 priority 500; ip rule add fwmark 0x7 lookup 100 priority 501
ip -6 rule add to 2001:db8:2::/48 table 100 priority 502
ip neigh add 10.99.0.77 lladdr 02:00:00:00:00:77 dev dum0 nud permanent
ip link add br0 type bridge stp_state 0 forward_delay 300; ip link set br0 up; ip addr add 10.98.0.1/24 dev br0
ip link add va type veth peer name vb; ip link set va master br0; ip link set va up; ip link set vb up
ip link add link dum0 name dum0.7 address 02:00:00:00:07:07 type macvlan mode bridge; ip link set dum0.7 up
ip addr add 10.97.0.1/24 dev dum0.7
sysctl -qw net.ipv4.conf.dum0.rp_filter=2 net.ipv4.conf.br0.forwarding=1 \
    net.ipv4.tcp_keepalive_time=7100 net.ipv4.ip_local_port_range="20000 50000"
mkdir -p /srv/{bound,kept,over,share}; mount --bind /opt /srv/bound
mount -t tmpfs -o size=1m,mode=0750,noexec kept /srv/kept; echo x > /srv/share/file
mkdir -p /etc/lab.d /srv/conf; echo mine > /etc/lab.d/a; echo conf > /srv/conf/app
# What a bus daemon is to a step: it does, in a cgroup of its own, what it is asked to over a socket.
cat > /usr/local/sbin/lab-doer <<'X'
#!/usr/bin/python3
import os, socket, subprocess
os.path.exists("/run/lab-doer") and os.unlink("/run/lab-doer")
s = socket.socket(socket.AF_UNIX); s.bind("/run/lab-doer"); s.listen()
while True:
    c, _ = s.accept(); script = c.recv(65536).decode()
    done = subprocess.run(["bash", "-ec", script], capture_output=True); c.send(b"%d" % done.returncode + done.stderr); c.close()
X
cat > /usr/local/bin/ask <<'X'
#!/usr/bin/python3
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect("/run/lab-doer"); s.send(sys.argv[1].encode()); r = s.recv(65536).decode()
sys.exit(0 if r == "0" else r)
X
chmod 755 /usr/local/sbin/lab-doer /usr/local/bin/ask; rm -f /run/lab-doer
printf '[Service]\nExecStart=/usr/local/sbin/lab-doer\n' > /etc/systemd/system/lab-doer.service
systemctl daemon-reload; systemctl start lab-doer
for i in $(seq 50); do [ -S /run/lab-doer ] && break; sleep 0.1; done
sleep 2  # duplicate address detection, and whatever a start set in motion
"""


class Scenario(NamedTuple):
    """`probes`: the option. `steps` are scripts, each a step."""

    name: str
    steps: tuple[str, ...]
    probes: object = None


def scenario(name: str, *steps: str, probes: object = None) -> Scenario:
    return Scenario(name, steps, probes)


SCENARIOS = (
    scenario(
        "etc: a service registers an alternative when it starts",
        "printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\n"
        "ExecStart=update-alternatives --log /dev/null --install /etc/lab-alternative lab-alternative /bin/true 7\\n'"
        " > /etc/systemd/system/lab-alternative.service; systemctl daemon-reload; systemctl start lab-alternative",
    ),
    scenario(
        "nft: a rule more",
        "nft add rule inet kept side udp dport 53 accept",
    ),
    scenario(
        "nft: everything flushed",
        "nft flush ruleset",
    ),
    scenario(
        "nft: a table of its own, with sets",
        "nft -f - <<< 'table ip6 new { set s { type ipv6_addr; elements = { ::1 }; }; chain c { ip6 saddr @s drop; }; }'",
    ),
    scenario(
        "nft: elements of a set and a map",
        "nft add element inet kept blocked { 203.0.113.9 }; nft delete element inet kept ports { 80 }",
    ),
    scenario(
        "nft: a table is replaced by a file",
        "printf 'flush ruleset\\ntable inet kept { chain input { type filter hook input priority 0; "
        "policy accept; }; }\\n' > /etc/nftables.conf; nft -f /etc/nftables.conf",
    ),
    scenario(
        "nft: the service is restarted",
        "printf '#!/usr/sbin/nft -f\\nflush ruleset\\ntable ip only { chain c { }; }\\n' > /etc/nftables.conf; systemctl restart nftables",
    ),
    scenario(
        "nft: dormant, renamed, deleted",
        "nft 'add table ip nat { flags dormant; }'; nft rename chain ip nat post after; nft delete table inet kept",
    ),
    scenario(
        "ip: addresses more and less",
        "ip addr add 10.99.0.9/24 dev dum0; ip addr del 10.99.0.2/24 dev dum0; "
        "ip addr add 192.0.2.1/32 dev lo; ip -6 addr add 2001:db8:1::7/64 dev dum0",
    ),
    scenario(
        "ip: the primary address goes, and with it the others",
        "ip addr del 10.99.0.1/24 dev dum0",
    ),
    scenario(
        "ip: all addresses of a link flushed",
        "ip addr flush dev dum0",
    ),
    scenario(
        "ip: a link goes down",
        "ip link set dum0 down",
    ),
    scenario(
        "ip: a link is deleted",
        "ip link del dum0",
    ),
    scenario(
        "ip: a bridge and a veth pair are deleted",
        "ip link del va; ip link del br0",
    ),
    scenario(
        "ip: new links",
        "ip link add dum1 type ifb; ip link set dum1 up; ip addr add 10.96.0.1/24 dev dum1; "
        "ip route add 10.95.0.0/16 via 10.96.0.9; ip link add br1 type bridge; "
        "ip link add vx type vxlan id 5 dev dum0 dstport 4789; ip link set vx master br1; ip link set br1 up",
    ),
    scenario(
        "ip: settings of links",
        "ip link set dum0 mtu 1280 txqueuelen 99 alias other promisc on; "
        "ip link set dum0 address 02:00:00:00:12:34; ip link set br0 type bridge stp_state 1; "
        "ip link set va nomaster; ip link set dum0 name other0",
    ),
    scenario(
        "ip: routes replaced, deleted, added",
        "ip route replace 10.50.0.0/16 via 10.99.0.5; ip route del blackhole 10.51.0.0/16; "
        "ip route flush table 100; ip route del 10.53.0.0/16; ip -6 route del 2001:db8:2::/48; "
        "ip route add 172.16.0.0/12 via 10.99.0.9 table 77",
    ),
    scenario(
        "ip: rules",
        "ip rule del priority 500; ip rule add from 10.99.0.5 table 200 priority 400; "
        "ip -6 rule del priority 502; ip rule add iif lo oif dum0 lookup main priority 90",
    ),
    scenario(
        "ip: neighbours",
        "ip neigh del 10.99.0.77 dev dum0; ip neigh add 10.99.0.78 lladdr 02:00:00:00:00:78 dev dum0 nud permanent",
    ),
    scenario(
        "ip: next hops",
        "ip nexthop add id 7 via 10.99.0.4 dev dum0; ip route add 10.94.0.0/16 nhid 7",
    ),
    scenario(
        "sysctl: by the program",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.tcp_keepalive_time=60 net.ipv6.conf.dum0.accept_ra=2",
    ),
    scenario(
        "sysctl: by a daemon",
        "printf 'net.ipv4.tcp_keepalive_time = 99\\nnet.ipv4.ip_forward = 1\\nnet.ipv4.conf.all.rp_filter = "
        "1\\n' > /etc/sysctl.d/50-lab.conf; systemctl restart systemd-sysctl",
    ),
    scenario(
        "sysctl: all of it by a daemon, and a link renewed",
        "ask 'sysctl -qw net.ipv4.conf.all.forwarding=1 net.ipv4.conf.default.rp_filter=1 "
        'net.ipv4.ip_local_port_range="1025 60000"\'; ip link del dum0.7',
    ),
    scenario(
        "hostname: hostnamectl",
        "hostnamectl set-hostname other.example; hostnamectl set-chassis vm; hostnamectl set-location 'the cellar'",
    ),
    scenario(
        "hostname: the program, and the NIS domain",
        "hostname quick; domainname yp.example || nisdomainname yp.example || python3 -c 'import ctypes; "
        'ctypes.CDLL(None).setdomainname(b"yp", 2)\'',
    ),
    scenario(
        "time zone: timedatectl, and back and forth",
        "timedatectl set-timezone Asia/Tokyo; timedatectl set-timezone America/Lima",
    ),
    scenario(
        "time zone: by the link",
        "ln -sf ../usr/share/zoneinfo/Asia/Tokyo /etc/localtime; echo Asia/Tokyo > /etc/timezone; timedatectl set-local-rtc 0",
    ),
    scenario(
        "locale: localectl",
        "localectl set-locale LANG=C.UTF-8 LC_TIME=C; localectl set-keymap de || true; localectl set-x11-keymap de || true",
    ),
    scenario(
        "mount: a file system in memory, a bind mount, both used",
        "mount -t tmpfs -o size=2m new /mnt; echo x > /mnt/file; mkdir /srv/new; mount --bind /usr /srv/new; "
        "mount -o remount,ro,bind /srv/new",
    ),
    scenario(
        "mount: one is unmounted and its place removed",
        "umount /srv/bound; rmdir /srv/bound; umount /srv/kept",
    ),
    scenario(
        "mount: options and propagation",
        "mount -o remount,ro,bind /srv/bound; mount --make-private /srv/bound; "
        "mount -o remount,exec,size=2m /srv/kept; mount -o remount,noexec /dev/shm",
    ),
    scenario("options that a file system had not", "mount -o remount,hidepid=2,gid=7 /proc; mount -o remount,size=3m /dev/shm"),
    scenario(
        "mount: over one another, and moved",
        "mount -t tmpfs one /srv/over; mount -t tmpfs two /srv/over; mkdir /srv/moved; "
        "mount --make-private /; mount --move /srv/bound /srv/moved; mount --make-shared /",
    ),
    scenario(
        "mount: files below and on it",
        "echo below > /srv/over/file; mount --bind /srv/share /srv/over; echo changed > /srv/over/file; rm -rf /srv/share/file",
    ),
    scenario(
        "mount: a unit",
        "printf '[Mount]\\nWhat=tmpfs\\nWhere=/srv/over\\nType=tmpfs\\n[Install]\\nWantedBy=multi-user.target\\n' "
        "> /etc/systemd/system/srv-over.mount; systemctl daemon-reload; systemctl enable --now srv-over.mount",
    ),
    scenario(
        "etc: a daemon writes, replaces and removes",
        "ask 'echo theirs > /etc/lab.d/new; echo changed > /etc/lab.d/a; chmod 600 /etc/issue; rm /etc/motd; "
        "mkdir -p /etc/born.d/x; echo y > /etc/born.d/x/y; ln -sf nowhere /etc/lab.link'",
    ),
    scenario(
        "etc: a step and a daemon on the same files",
        "echo step > /etc/lab.d/a; ask 'echo daemon >> /etc/lab.d/a; echo z > /etc/lab.d/z'; chmod 640 /etc/lab.d/a; rm /etc/lab.d/z",
        "hostnamectl set-hostname twice; chmod 600 /etc/hostname",
    ),
    scenario(
        "etc: a further tree",
        "ask 'echo changed > /srv/conf/app; echo new > /srv/conf/new'",
        probes=["all", {"name": "etc", "trees": ["/srv/conf"]}],
    ),
    scenario(
        "own: two commands",
        "ask 'echo other > /srv/share/file; touch -d 2020-01-01 /srv/share/file /srv/share'",
        probes=[
            "all",
            {
                "name": "shared",
                "capture": ["tar", "-C", "/srv", "--format=posix", "--pax-option=delete=atime,delete=ctime", "-cf", "-", "share"],
                "restore": "tar -C /srv -xpf -",
            },
        ],
    ),
    scenario(
        "everything at once",
        "hostnamectl set-hostname all; ip link del br0; nft flush ruleset; sysctl -qw net.ipv4.ip_forward=1; umount /srv/bound",
        "timedatectl set-timezone Asia/Tokyo; ip addr flush dev dum0; systemctl stop lab-doer",
        "ip link set dum0.7 down; mount -t tmpfs x /srv/over; ip rule flush; ip rule add lookup main priority 32766",
    ),
)
