# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of systemd's units as people and packages make them, each of which an undo must take back to what PREPARED had made."""

from __future__ import annotations

from typing import NamedTuple

# A service's second word of its command line says which unit file it runs by, its file in /run/lab which configuration it has read.
PREPARED = r"""
set -e
mkdir -p /etc/lab /run/lab /opt/lab /srv/lab /srv/other /srv/late /root/.config/systemd/user
cd /etc/systemd/system
unit() { cat > "/etc/systemd/system/lab-$1"; }
runs() { echo "ExecStart=/bin/sh -c 'cat /etc/lab/$1.conf > /run/lab/$1; exec sleep $2'"; echo "$1 old" > /etc/lab/$1.conf; }
for name in keep one two; do unit $name.service <<X
[Service]
$(runs $name 1001)
ExecReload=/bin/sh -c 'cat /etc/lab/$name.conf > /run/lab/$name'
[Install]
WantedBy=multi-user.target
X
done
unit idle.service <<X
[Service]
$(runs idle 1002)
[Install]
WantedBy=multi-user.target
Alias=lab-alias.service
X
unit static.service <<X
[Service]
$(runs static 1003)
X
cat > /usr/lib/systemd/system/lab-masked.service <<X
[Service]
$(runs masked 1004)
[Install]
WantedBy=multi-user.target
X
ln -s /dev/null /etc/systemd/system/lab-masked.service
cat > /opt/lab/lab-linked.service <<X
[Service]
$(runs linked 1005)
[Install]
WantedBy=multi-user.target
X
cat > /opt/lab/lab-afar.service <<X
[Service]
$(runs afar 1005)
[Install]
WantedBy=multi-user.target
X
unit tpl@.service <<X
[Service]
ExecStart=/bin/sh -c 'exec sleep 1006 # %%i'
[Install]
WantedBy=multi-user.target
DefaultInstance=d
X
unit base.service <<X
[Service]
$(runs base 1007)
ExecStartPost=/bin/sh -c 'test ! -e /run/lab/up-middle && touch /run/lab/up-base'
ExecStopPost=/bin/rm -f /run/lab/up-base
X
unit middle.service <<X
[Unit]
Requires=lab-base.service
After=lab-base.service
[Service]
ExecStartPre=/usr/bin/test -e /run/lab/up-base
$(runs middle 1007)
ExecStartPost=/bin/touch /run/lab/up-middle
ExecStopPost=/bin/rm -f /run/lab/up-middle
X
unit top.service <<X
[Unit]
BindsTo=lab-middle.service
After=lab-middle.service
[Service]
ExecStartPre=/usr/bin/test -e /run/lab/up-middle
$(runs top 1007)
X
unit part.service <<X
[Unit]
PartOf=lab-base.service
[Service]
$(runs part 1007)
X
unit rival.service <<X
[Unit]
Conflicts=lab-two.service
After=lab-two.service
[Service]
$(runs rival 1008)
X
unit tick.timer <<X
[Timer]
OnCalendar=2099-01-01
Persistent=yes
[Install]
WantedBy=timers.target
X
unit tick.service <<X
[Service]
Type=oneshot
ExecStart=/bin/true
X
unit sock.socket <<X
[Socket]
ListenStream=/run/lab/sock
ListenStream=7001
[Install]
WantedBy=sockets.target
X
unit sock.service <<X
[Service]
$(runs sock 1009)
X
unit busy.socket <<X
[Socket]
ListenStream=/run/lab/busy
X
unit busy.service <<X
[Service]
$(runs busy 1021)
X
unit acc.socket <<X
[Socket]
ListenStream=/run/lab/acc
Accept=yes
X
unit acc@.service <<X
[Service]
ExecStart=/bin/cat
StandardInput=socket
X
unit path.path <<X
[Path]
PathChanged=/etc/lab/watched
X
unit path.service <<X
[Service]
$(runs path 1010)
X
unit flag.path <<X
[Path]
PathExists=/etc/lab/flag
X
unit flag.service <<X
[Service]
$(runs flag 1010)
X
cat > srv-lab.mount <<X
[Mount]
What=lab
Where=/srv/lab
Type=tmpfs
Options=size=1m,mode=0755
X
sed s,/srv/lab,/srv/other, srv-lab.mount > srv-other.mount
unit mounted.service <<X
[Unit]
RequiresMountsFor=/srv/lab
BindsTo=srv-lab.mount
After=srv-lab.mount
[Service]
$(runs mounted 1011)
X
unit failed.service <<X
[Service]
ExecStart=/bin/false
X
unit ready.service <<X
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'systemd-notify --ready; exec sleep 1012'
X
unit stays.service <<X
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat /etc/lab/stays.conf > /run/lab/stays'
ExecStop=/bin/rm -f /run/lab/stays
X
echo stays old > /etc/lab/stays.conf
unit slow.service <<X
[Service]
ExecStartPre=/bin/sleep 0.7
$(runs slow 1013)
ExecStop=/bin/sleep 0.7
X
unit private.service <<X
[Service]
DynamicUser=yes
StateDirectory=lab-private
RuntimeDirectory=lab-private
PrivateTmp=yes
ExecStart=/bin/sh -c 'echo up > /run/lab-private/up; exec sleep 1014'
X
unit grouped.service <<X
[Service]
Slice=lab-some-deep.slice
$(runs grouped 1015)
X
unit 'odd\x20na\x2dme.service' <<X
[Service]
ExecStart=/bin/sleep 1016
X
unit fire.timer <<X
[Timer]
OnActiveSec=1
AccuracySec=50ms
X
unit fire.service <<X
[Service]
ExecStart=/bin/sleep 1017
X
unit crash.service <<X
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sleep 1
Restart=always
RestartSec=100ms
X
for name in u1 u2; do cat > /root/.config/systemd/user/lab-$name.service <<X
[Service]
$(runs $name 1018)
[Install]
WantedBy=default.target
X
done
ln -sn /opt/lab/lab-afar.service lab-afar.service
echo watched > /etc/lab/watched
# Their writers are nobody's children in a step; what was there before is out of reach.
for file in /etc/lab/*.conf; do cp $file /run/lab/$(basename $file .conf); done
loginctl enable-linger root
systemctl daemon-reload
systemctl -q enable lab-one lab-tpl@a lab-tick.timer lab-sock.socket
"""

# What runs; also what a boot does not start. The order is that of people, not of dependencies.
STARTED = r"""
systemctl start lab-{keep,one,two,top,part,mounted,ready,stays,slow,private,grouped}.service 'lab-odd\x20na\x2dme.service' \
    lab-tpl@a lab-tick.timer lab-sock.socket lab-acc.socket lab-path.path lab-flag.path srv-lab.mount lab-busy.socket
systemctl start lab-busy.service
systemctl start lab-failed 2> /dev/null
systemd-run -qu lab-adhoc -p CPUWeight=70 -p "Environment=A=x%%y B=z" sleep 1019
for i in $(seq 50); do [ -S /run/user/0/systemd/private ] && break; sleep 0.1; done
export XDG_RUNTIME_DIR=/run/user/0; systemctl --user daemon-reload; systemctl --user -q enable --now lab-u1
sleep 1
"""


class Scenario(NamedTuple):
    """`steps` are scripts, each a step; `moves` the units whose invocation may be another one afterwards. `during` is an administrator's
    script, and runs between the steps and the undo; `after` is what he does to what he did, before the host is looked at."""

    name: str
    steps: tuple[str, ...]
    moves: tuple[str, ...] = ()
    during: str = ""
    after: str = ""
    alone: bool = False  # not with others in one transaction


def scenario(name: str, *steps: str, moves: str = "", during: str = "", after: str = "", alone: bool = False) -> Scenario:
    units = tuple(unit if "." in unit else f"lab-{unit}.service" for unit in moves.split())
    return Scenario(name, steps, units, during, after, alone)


def in_time(test: str) -> str:
    """Waits until it is so, which takes longer on a busy machine."""
    return f"for i in $(seq 200); do {test} && break; sleep 0.1; done; {test}"


USER = "export XDG_RUNTIME_DIR=/run/user/0; "

SCENARIOS = (
    scenario(
        "enable: more and less",
        "systemctl enable lab-idle; systemctl disable lab-one; systemctl enable --runtime lab-two",
        "systemctl add-wants multi-user.target lab-static.service; systemctl reenable lab-tick.timer",
    ),
    scenario(
        "enable and start, by one command",
        "systemctl enable --now lab-idle; systemctl disable --now lab-one",
        moves="one",
    ),
    scenario(
        "static: started, and enabled by a drop-in",
        "mkdir /etc/systemd/system/lab-static.service.d; printf '[Install]\\nWantedBy=multi-user.target\\n'"
        " > /etc/systemd/system/lab-static.service.d/x.conf; systemctl daemon-reload; systemctl enable --now lab-static",
    ),
    scenario(
        "masked: a unit that runs, one that does not, one no more",
        "systemctl mask cron lab-no-such.service; systemctl mask --runtime rsync; systemctl mask --now apt-daily.timer",
        "systemctl unmask lab-masked; systemctl enable --now lab-masked; systemctl mask --now ssh.socket; "
        "rm /etc/systemd/system/lab-two.service; systemctl mask --now lab-two",
        moves="apt-daily.timer two",
    ),
    scenario(
        "linked: a unit file from afar, and one no more",
        "systemctl enable --now /opt/lab/lab-linked.service; systemctl disable lab-afar",
    ),
    scenario(
        "templates: instances come and go, the template changes",
        "systemctl enable --now lab-tpl@b 'lab-tpl@x-y\\x2fz.service'; systemctl disable --now lab-tpl@a; systemctl enable lab-tpl@",
        "sed -i s/1006/2006/ /etc/systemd/system/lab-tpl@.service; systemctl daemon-reload; systemctl restart 'lab-tpl@*'",
        "systemctl start lab-tpl@a; systemctl stop lab-tpl@b; systemctl start lab-tpl@c",
        moves="tpl@a",
    ),
    scenario(
        "drop-ins: by hand, by set-property, reverted",
        "mkdir -p /etc/systemd/system/lab-one.service.d /run/systemd/system/lab-two.service.d",
        "printf '[Service]\\nExecStart=\\nExecStart=/bin/sleep 2001\\n' > /etc/systemd/system/lab-one.service.d/o.conf; "
        "printf '[Service]\\nEnvironment=A=b\\n' > /run/systemd/system/lab-two.service.d/o.conf; systemctl daemon-reload; "
        "systemctl restart lab-one lab-two",
        "systemctl set-property lab-keep CPUWeight=50; systemctl set-property --runtime lab-slow CPUWeight=60; systemctl revert lab-one",
        moves="one two",
    ),
    scenario(
        "presets",
        "mkdir -p /etc/systemd/system-preset; printf 'disable lab-one.service\\nenable lab-idle.service\\nenable lab-tpl@.service p q\\n'"
        " > /etc/systemd/system-preset/00-lab.preset; systemctl preset lab-one lab-idle lab-tpl@.service cron",
        "systemctl preset-all",
    ),
    scenario(
        "an older file: the old command runs again",
        "sed -i s/1001/2001/ /etc/systemd/system/lab-one.service; echo new > /etc/lab/one.conf",
        "systemctl daemon-reload; systemctl restart lab-one",
        "sed -e s/1001/3001/ /etc/systemd/system/lab-two.service > /opt/lab/two; mv /opt/lab/two /etc/systemd/system/lab-two.service; "
        "systemctl daemon-reload; systemctl try-restart lab-two; sed -i s/1012/2012/ /etc/systemd/system/lab-ready.service; "
        "systemctl daemon-reload; systemctl restart lab-ready",
        moves="one two ready",
    ),
    scenario(
        "files change, and nothing is restarted",
        "sed -i s/10/20/ /etc/systemd/system/lab-{one,two,keep,slow}.service; systemctl daemon-reload",
        "rm /etc/systemd/system/lab-ready.service; systemctl daemon-reload; echo new > /etc/lab/keep.conf",
    ),
    scenario(
        "reloaded: what read its configuration anew reads the old one",
        "echo new > /etc/lab/one.conf; systemctl reload lab-one; echo new > /etc/lab/two.conf; systemctl reload-or-restart lab-two",
    ),
    scenario(
        "timers: stopped, changed, new with a stamp",
        "systemctl stop lab-tick.timer; sed -i s/2099/2098/ /etc/systemd/system/lab-tick.timer; systemctl daemon-reload; "
        "systemctl start lab-tick.timer",
        "printf '[Timer]\\nOnCalendar=2097-01-01\\nPersistent=yes\\n[Install]\\nWantedBy=timers.target\\n'"
        " > /etc/systemd/system/lab-fresh.timer; printf '[Service]\\nType=oneshot\\nExecStart=/bin/true\\n'"
        " > /etc/systemd/system/lab-fresh.service; systemctl daemon-reload; systemctl enable --now lab-fresh.timer",
        "systemctl disable --now apt-daily.timer; systemctl start lab-tick.service; systemctl clean --what=state lab-tick.timer || true",
        moves="lab-tick.timer apt-daily.timer",
    ),
    scenario(
        "sockets: another address, what they activate, and connections",
        "sed -i s/7001/7002/ /etc/systemd/system/lab-sock.socket; systemctl daemon-reload; systemctl restart lab-sock.socket",
        "python3 -c \"import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/lab/sock'); a = socket.socket(socket.AF_UNIX); "
        "a.connect('/run/lab/acc'); import os, time; os.fork() or time.sleep(600)\" > /dev/null 2>&1 < /dev/null; sleep 0.3",
        "systemctl is-active lab-sock.service; printf '[Socket]\\nListenFIFO=/run/lab/born\\nRemoveOnStop=yes\\n[Install]\\n"
        "WantedBy=sockets.target\\n' > /etc/systemd/system/lab-static.socket; systemctl daemon-reload; "
        "systemctl enable --now lab-static.socket; systemctl stop lab-acc.socket",
        moves="lab-sock.socket lab-acc.socket",
    ),
    scenario(
        "sockets: a client waits in the queue",
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('/run/lab/sock')\"; "
        + in_time("systemctl is-active lab-sock.service")
        + "; systemctl restart lab-sock.service",
        moves="lab-sock.socket",
        alone=True,
    ),
    scenario(
        "sockets: one goes, and its service stays",
        "systemctl stop lab-acc.socket; systemctl stop lab-busy.socket; systemctl is-active lab-busy.service",
        moves="lab-acc.socket lab-busy.socket busy",
    ),
    scenario(
        "killed by a signal, nobody asked",
        "kill $(cat /sys/fs/cgroup/system.slice/lab-two.service/cgroup.procs); " + in_time("! systemctl is-active lab-two"),
        moves="two",
    ),
    scenario(
        "slices: all that is in them stops",
        "systemctl stop lab.slice 'system-lab\\x2dtpl.slice'; systemctl is-active lab-grouped lab-tpl@a && exit 1 || true",
        moves="grouped tpl@a lab.slice lab-some.slice lab-some-deep.slice system-lab\\x2dtpl.slice",
    ),
    scenario(
        "paths: a change and a flag start what watches them",
        "echo changed > /etc/lab/watched; touch /etc/lab/flag; " + in_time("systemctl is-active lab-path && systemctl is-active lab-flag"),
        "systemctl stop lab-path.path; systemctl start lab-path.path",
        moves="lab-path.path",
    ),
    scenario(
        "mounts: a unit comes, a unit goes, one fails",
        "systemctl start srv-other.mount",
        "systemctl stop srv-lab.mount; systemctl is-active lab-mounted && exit 1 || true",
        "printf '[Mount]\\nWhat=/none\\nWhere=/srv/late\\nType=ext4\\n'"
        " > /etc/systemd/system/srv-late.mount; systemctl daemon-reload; systemctl start srv-late.mount || true",
        moves="srv-lab.mount mounted",
    ),
    scenario(
        "user units of root",
        USER + "systemctl --user enable --now lab-u2; systemctl --user stop lab-u1; systemctl --user disable lab-u1",
        USER + "sed -i s/1018/2018/ /root/.config/systemd/user/lab-u2.service; systemctl --user daemon-reload; "
        "systemctl --user restart lab-u2; systemctl --user start lab-u1; systemctl --user mask dirmngr.socket; "
        "systemd-run --user -u lab-urun sleep 2000",
        "systemctl --global enable dirmngr.socket || true; mkdir -p /root/.config/systemd/user/lab-u1.service.d; "
        "printf '[Service]\\nNice=1\\n' > /root/.config/systemd/user/lab-u1.service.d/x.conf; " + USER + "systemctl --user daemon-reload",
        moves="user/lab-u1.service",
    ),
    scenario(
        "user units of root: the file is a package's",
        "mv /root/.config/systemd /opt/lab/systemd; rmdir /root/.config; printf '[Service]\\nExecStart=/bin/sleep 2021\\n[Install]\\n"
        "WantedBy=default.target\\n' > /usr/lib/systemd/user/lab-pkg.service; " + USER + "systemctl --user daemon-reload; "
        "systemctl --user enable --now lab-pkg",
        alone=True,
    ),
    scenario(
        "linger: root's services need a login",
        "loginctl disable-linger root",
        alone=True,
    ),
    scenario(
        "linger: asked for again",
        "loginctl enable-linger root",
    ),
    scenario(
        "linger: another user's services",
        "loginctl enable-linger deploy; sleep 1",
        "uid=$(id -u deploy); mkdir -p ~deploy/.config/systemd/user; printf '[Service]\\nExecStart=/bin/sleep 2020\\n[Install]\\n"
        "WantedBy=default.target\\n' > ~deploy/.config/systemd/user/lab-d.service; chown -R deploy: ~deploy/.config; "
        "setpriv --reuid=$uid --regid=$uid --clear-groups env HOME=/home/deploy XDG_RUNTIME_DIR=/run/user/$uid"
        " systemctl --user enable --now lab-d",
    ),
    scenario(
        "failed: because of the transaction, and before it",
        "sed -i 's,^ExecStart=.*,ExecStart=/bin/false,' /etc/systemd/system/lab-one.service; systemctl daemon-reload; "
        "systemctl restart lab-one || true",
        "systemctl start lab-failed || true; printf '[Service]\\nExecStart=/no/such\\n' > /etc/systemd/system/lab-broken.service; "
        "systemctl daemon-reload; systemctl start lab-broken || true; systemctl kill -s KILL lab-two",
        "systemd-run -u lab-fails false; sleep 0.2; systemctl is-failed lab-fails lab-broken lab-one lab-two",
        moves="one two failed",
    ),
    scenario(
        "failed: before the transaction, which mends it",
        "sed -i 's,^ExecStart=.*,ExecStart=/bin/sleep 2021,' /etc/systemd/system/lab-failed.service; systemctl daemon-reload; "
        "systemctl start lab-failed; systemctl is-active lab-failed",
        "systemctl stop lab-failed",
        moves="failed",
    ),
    scenario(
        "failed: before the transaction, which forgets it",
        "systemctl reset-failed lab-failed",
        moves="failed",
    ),
    scenario(
        "dependencies: a whole chain stops and starts in order",
        "echo new > /etc/lab/base.conf; systemctl stop lab-base; systemctl is-active lab-middle lab-top lab-part && exit 1 || true",
        "systemctl start lab-part",
        moves="base middle top part",
    ),
    scenario(
        "dependencies: a restart goes up the chain",
        "echo new > /etc/lab/base.conf; echo new > /etc/lab/top.conf; systemctl restart lab-base",
        moves="base middle top part",
    ),
    scenario(
        "dependencies: a rival stops another, and brings friends",
        "printf '[Service]\\nExecStart=/bin/sleep 2000\\n' > /etc/systemd/system/lab-friend.service; "
        "sed -i 's/^Conflicts/Wants=lab-friend.service lab-idle.service\\nConflicts/' /etc/systemd/system/lab-rival.service; "
        "systemctl daemon-reload; systemctl start lab-rival; systemctl is-active lab-two && exit 1 || true",
        moves="two",
    ),
    scenario(
        "born: a service with directories, users, socket, timer and slice",
        'cd /etc/systemd/system; printf \'[Service]\\nExecStart=/bin/sh -c "echo data > /var/lib/lab-born/data; exec sleep 2000"\\n'
        "StateDirectory=lab-born\\nCacheDirectory=lab-born/deep\\nLogsDirectory=lab-born\\nRuntimeDirectory=lab-born\\n"
        "Slice=lab-born.slice\\nConfigurationDirectory=lab-born\\n[Install]\\nWantedBy=multi-user.target\\n' > lab-born.service; "
        "printf '[Service]\\nDynamicUser=yes\\nStateDirectory=lab-dyn\\nExecStart=/bin/sleep 2000\\n' > lab-dyn.service; "
        "printf '[Timer]\\nOnBootSec=1\\n[Install]\\nWantedBy=timers.target\\n' > lab-born.timer; systemctl daemon-reload; "
        "systemctl enable --now lab-born lab-born.timer; systemctl start lab-dyn",
        "printf '[Unit]\\nDescription=t\\nWants=lab-born.service\\n' > /etc/systemd/system/lab-born.target; systemctl daemon-reload; "
        "systemctl start lab-born.target",
    ),
    scenario(
        "gone: files of what runs",
        "rm /etc/systemd/system/lab-{one,two,stays}.service /etc/systemd/system/multi-user.target.wants/lab-one.service; "
        "systemctl stop lab-one; systemctl daemon-reload; systemctl reset-failed lab-one || true",
        "rm /etc/systemd/system/lab-base.service; systemctl daemon-reload; systemctl stop lab-middle lab-base",
        moves="one base middle top part",
    ),
    scenario(
        "gone: a package's way, everything of a unit at once",
        "systemctl disable --now lab-one lab-sock.socket lab-tick.timer; rm /etc/systemd/system/lab-{one.service,sock.*,tick.*}; "
        "systemctl daemon-reload; systemctl mask lab-one.service",
        moves="one lab-sock.socket lab-tick.timer",
    ),
    scenario(
        "transient: units made and ended by systemd-run",
        "systemd-run -u lab-new sleep 2000; systemd-run --on-active=1h -u lab-later true; systemd-run -u lab-done true; "
        "systemd-run --slice=lab-other -u lab-inslice sleep 2000; systemd-run -qu lab-remains -r true",
        "(systemd-run --scope -u lab-scope sleep 2000 > /dev/null 2>&1 < /dev/null &) ; sleep 0.3",
    ),
    scenario(
        "born: what a service and its start script leave in /run",
        "cat > /opt/lab/leaves <<'X'\nimport os, socket, time\n"
        "for name in ('lab-born/s', 'lab-alone.sock'):\n    socket.socket(socket.AF_UNIX).bind('/run/' + name)\n"
        "os.mkfifo('/run/lab-born/pipe')\nos.symlink('/etc', '/run/lab-born/conf')\n"
        "open('/run/lab-born.pid', 'w').write('%d\\n' % os.getpid())\ntime.sleep(1030)\nX\n"
        "printf '[Service]\\nExecStartPre=/bin/mkdir -p /run/lab-born/socks /run/lock/lab-born\\n"
        "ExecStart=/usr/bin/python3 /opt/lab/leaves\\n' > /etc/systemd/system/lab-leaves.service; "
        "systemctl daemon-reload; systemctl start lab-leaves; " + in_time("test -s /run/lab-born.pid"),
    ),
    scenario(
        "born: what a service makes for itself in /var",
        "printf '[Service]\nExecStartPre=/bin/mkdir -p /var/lib/lab-own/deep /var/cache/lab-own\n"
        "ExecStartPre=/bin/touch /var/lib/lab-own/deep/file /var/log/lab-own.log\n"
        "ExecStart=/bin/sleep 1032\n' > /etc/systemd/system/lab-own.service; "
        "systemctl daemon-reload; systemctl start lab-own; test -e /var/log/lab-own.log",
    ),
    scenario(
        "born: a socket with a connection that its service never took",
        "printf '[Socket]\\nListenStream=/run/lab-asked.sock\\n' > /etc/systemd/system/lab-asked.socket; "
        "printf '[Service]\\nExecStart=/bin/sleep 1031\\n' > /etc/systemd/system/lab-asked.service; "
        "systemctl daemon-reload; systemctl start lab-asked.socket",
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"/run/lab-asked.sock\")'; "
        + in_time("systemctl is-active lab-asked"),
    ),
    scenario(
        "left: what an administrator made in /run while no step had asked anybody",
        "systemctl start lab-idle",
        "sleep 2.2",
        during="mkdir /run/lab-admin",
        after="rmdir /run/lab-admin",
    ),
    scenario(
        "transient: restarted, and changed while it runs",
        "systemctl set-property --runtime lab-adhoc CPUWeight=30; systemctl restart lab-adhoc",
        moves="adhoc",
    ),
    scenario(
        "daemon-reexec",
        "systemctl daemon-reexec",
        "echo new > /etc/lab/one.conf; systemctl restart lab-one; systemctl enable lab-idle; systemctl daemon-reexec",
        moves="one",
        alone=True,
    ),
    scenario(
        "not ours: a timer, a restart policy, an administrator",
        "sleep 1.6; systemctl is-active lab-fire",
        "systemctl restart lab-one",
        moves="one crash fire two",
        # Not sooner after the last step than a daemon may be late.
        during="sleep 2.2; systemctl restart lab-two; systemctl start lab-static lab-idle; systemctl show -P InvocationID "
        "lab-{two,static,idle,fire} > /run/was",
        after="systemctl show -P InvocationID lab-{two,static,idle,fire} | cmp - /run/was; rm /run/was; "
        "systemctl stop lab-crash lab-fire lab-fire.timer lab-static lab-idle",
        alone=True,
    ),
    scenario(
        "jobs: still under way when it fails",
        "sed -i s/0.7/2/ /etc/systemd/system/lab-slow.service; systemctl daemon-reload; systemctl restart --no-block lab-slow; "
        "systemd-run --no-block -u lab-forever -p Type=oneshot sleep 2000",
        moves="slow",
    ),
    scenario(
        "the host's own: journald, logind, cron, ssh",
        "mkdir -p /etc/systemd/{journald,logind}.conf.d; printf '[Journal]\\nRateLimitBurst=7\\n' > /etc/systemd/journald.conf.d/x.conf; "
        "printf '[Login]\\nKillUserProcesses=no\\n' > /etc/systemd/logind.conf.d/x.conf; systemctl restart systemd-journald systemd-logind",
        "systemctl stop cron; echo 'MaxAuthTries 5' >> /etc/ssh/sshd_config; systemctl restart ssh; systemctl set-default rescue.target",
        moves="cron.service ssh.service systemd-journald.service systemd-logind.service systemd-journald.socket "
        "systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journal-flush.service",
    ),
    scenario(
        "odd names, private users, oneshots",
        "systemctl stop 'lab-odd\\x20na\\x2dme.service'; systemctl restart lab-private lab-stays lab-grouped; "
        "sed 's/1016/2016/' '/etc/systemd/system/lab-odd\\x20na\\x2dme.service' > '/etc/systemd/system/lab-odd@\\x2d.service'; "
        "systemctl daemon-reload; systemctl enable --now 'lab-odd@\\x2d.service' || systemctl start 'lab-odd@\\x2d.service'",
        moves="private stays grouped lab-odd\\x20na\\x2dme.service",
    ),
)
