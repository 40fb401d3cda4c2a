# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints what a process sees of itself, as one word."""
from __future__ import annotations

import base64
import json
import os
import resource
import socket


def status(*names):
    with open("/proc/self/status", encoding="ascii") as lines:
        found = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
    return {name: found[name] for name in names}


def read(name):
    with open(f"/proc/self/{name}", encoding="ascii") as f:
        return f.read().strip()


def agent_keys():
    """How many keys the ssh agent answers with; -1 without an agent."""
    path = os.environ.get("SSH_AUTH_SOCK")
    if not path:
        return -1
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(b"\0\0\0\1\x0b")
            answer = connection.recv(4096)
            return int.from_bytes(answer[5:9], "big")
    except OSError as error:
        return str(error)


def kind(fd):
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "closed"
    return target.partition(":")[0] if ":" in target else target


umask = os.umask(0)
os.umask(umask)
view = {
    "ids": [*os.getresuid(), *os.getresgid()],
    "groups": sorted(os.getgroups()),
    "environment": dict(os.environ),
    "umask": umask,
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")},
    "cwd": os.getcwd(),
    "agent": agent_keys(),
    "nice": os.nice(0),
    "streams": [kind(fd) for fd in (0, 1, 2)],
    "open": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
    "status": status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "SigBlk", "SigIgn", "NoNewPrivs"),
    "oom": read("oom_score_adj"),
    "loginuid": read("loginuid"),
    "affinity": sorted(os.sched_getaffinity(0)),
    "root": os.readlink("/proc/self/root") if os.getuid() == 0 else "",
}
print("VIEW:" + base64.b64encode(json.dumps(view).encode()).decode())
