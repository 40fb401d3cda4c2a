# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole lab: up, down, inventory; and the waits that a person expects of the commands."""

from __future__ import annotations

import http.server
import shutil
import sys
from typing import Any

from . import hosts, image, machine, network, pool, registry, ssh
from .model import KEY, MOUNT_OPTIONS, RUN, Host, Lab
from .recipe import HERE
from .run import kill_process, run, spawn, start_time, until

PORT = 8080


def up(name: str, *, count: int, fs: str, prefix: str, image_name: str) -> list[Host]:
    """Add running hosts to the lab (made if it is not there); returns when all answer and have finished booting."""
    lab = registry.claim_lab(name)  # first: from now on no other lab's `down` is the last, which takes away what is mounted here
    machine.raise_limits()
    pool.open_pool()
    image.build(image_name)
    hosts.mount_cgroup()
    (lab.run / "cm").mkdir(parents=True, exist_ok=True)
    with pool.lock(f"lab-{name}"):
        network.add_bridge(lab)
        _start_server(lab)
        known = registry.hosts(lab)
        names = {host.name for host in known}
        indexes = iter(sorted(set(range(240)) - {host.index for host in known}))
        numbers = (f"{prefix}{number}" for number in range(1, 10000))
        fresh = [
            hosts.make(lab, name=next(item for item in numbers if item not in names), index=next(indexes), fs=fs, image_name=image_name)
            for _turn in range(count)
        ]
    return wait([hosts.start(host) for host in fresh])


def wait(started: list[Host]) -> list[Host]:
    for host in started:
        ssh.wait_ssh(host)
    for host in started:
        ssh.wait_booted(host)
    return started


def reboot(host: Host) -> None:
    """An orderly reboot, as `systemctl reboot` in the host."""
    before = ssh.init_pid(host)
    started = start_time(before) if before else None
    ssh.inside(host, ["systemctl", "reboot"])
    ssh.forget_connections(host)
    until(lambda: before is None or start_time(before) != started, seconds=100, what=f"shutdown of {host.name}")
    wait([host])


def down(name: str) -> None:
    """Remove all that a lab made; works after a crash, does nothing to other labs."""
    lab = next((lab for lab in registry.labs() if lab.name == name), None)
    if lab is None:
        return
    pool.open_pool()
    hosts.mount_cgroup()
    for host in registry.hosts(lab):
        hosts.remove(host)
    _stop_server(lab)
    network.remove_bridge(lab)
    shutil.rmtree(lab.volumes, ignore_errors=True)
    shutil.rmtree(lab.images, ignore_errors=True)
    with pool.lock("registry"):
        shutil.rmtree(lab.run)
        if not registry.labs():  # and none is claimed before this is done
            run(["umount", str(RUN / "cgroup")], check=False)
            pool.close_pool()


def inventory(lab: Lab) -> dict[str, object]:
    return {
        "all": {
            "hosts": {host.name: {"ansible_host": host.ip} for host in registry.hosts(lab)},
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(KEY),
                "ansible_python_interpreter": "/usr/bin/python3",
                "ansible_ssh_common_args": " ".join(ssh.options(lab)[4:]),
                "lab_url": lab.url,
            },
        }
    }


def _start_server(lab: Lab) -> None:
    pid_file = lab.run / "server"
    if pid_file.exists():
        pid, started = pid_file.read_text(encoding="ascii").split()
        if start_time(int(pid)) == started:
            return
    server = spawn([sys.executable, str(HERE / "lab"), "--lab", lab.name, "_serve"], log=str(lab.run / "server.log"))
    pid_file.write_text(f"{server.pid} {start_time(server.pid)}", encoding="ascii")


def _stop_server(lab: Lab) -> None:
    pid_file = lab.run / "server"
    if pid_file.exists():
        pid, started = pid_file.read_text(encoding="ascii").split()
        kill_process(int(pid), started)


def serve(lab: Lab) -> None:
    """The image's repositories over http, for apt over http and for get_url."""

    def handler(*arguments: Any) -> http.server.SimpleHTTPRequestHandler:
        # Looked up at each request: a rebuilt image has another path.
        return http.server.SimpleHTTPRequestHandler(*arguments, directory=str(image.ready("base") / "srv/repo"))

    class Server(http.server.ThreadingHTTPServer):
        def service_actions(self) -> None:
            # Twice a second: a server whose lab is gone ends by itself, whatever became of its pid file.
            if not lab.run.exists():
                raise SystemExit(0)

    Server((lab.gateway, PORT), handler).serve_forever()


def identify_disk(host: Host) -> None:
    run(["mount", "-o", MOUNT_OPTIONS[host.fs], str(host.disk), str(host.root)])
    hosts.identify(host, host.root)
    run(["umount", str(host.root)])
