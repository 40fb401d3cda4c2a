# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which connection plugins a step can be supervised through, and why the others are refused.

The trace needs a Linux host with a POSIX shell whose every command goes through the connection's `exec_command`. A plugin that is
not in the table is refused before the first task: a step that went around the shell would be changed state without a before-image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Each name as `ansible_name` has it, without ansible.builtin. The value is shown in docs/connections.md.
SUPPORTED: Mapping[str, str] = {
    "ssh": "OpenSSH, with or without pipelining, ControlPersist and jump hosts",
    "local": "the controller itself, ansible-pull",
    "paramiko_ssh": "paramiko as shipped up to ansible-core 2.20",
    "ansible.netcommon.libssh": "libssh",
    "community.general.chroot": "a chroot on the controller, seen as the controller's own kernel sees it",
    "containers.podman.podman": "a podman container that may install seccomp filters as root",
    "community.docker.docker": "a docker container that may install seccomp filters as root",
    "community.docker.docker_api": "as community.docker.docker",
}

REFUSED: Mapping[str, str] = {
    "winrm": "Windows hosts have no journal",
    "psrp": "Windows hosts have no journal",
    "ansible.netcommon.network_cli": "network devices run no Linux programs to trace",
    "ansible.netcommon.netconf": "network devices run no Linux programs to trace",
    "ansible.netcommon.httpapi": "network devices run no Linux programs to trace",
    "ansible.netcommon.persistent": "network devices run no Linux programs to trace",
}


def short_name(connection: Any) -> str:
    name = str(getattr(connection, "ansible_name", None) or getattr(connection, "_load_name", None) or type(connection).__module__)
    return name.removeprefix("ansible.builtin.").removeprefix("ansible.legacy.")


def make_fresh(connection: Any) -> None:
    """What the connection runs from here on needs a new authentication, by the same route: so that a host which nobody can log in to any
    more is not committed. Only ssh shares a connection between tasks; the others make one for each."""
    if short_name(connection) == "ssh":
        # ssh takes the first value that it is given.
        connection.set_option("ssh_args", f"-o ControlPath=none -o ControlMaster=no {connection.get_option('ssh_args') or ''}".rstrip())


def address_of(action: Any) -> str:
    """Where the action's connection leads: the same name with another address is another host."""
    return str(action._get_remote_addr({}) or "")


def refusal(connection: Any) -> str:
    """Why this connection cannot carry a step, or an empty string when it can."""
    name = short_name(connection)
    if getattr(getattr(connection, "_shell", None), "_IS_WINDOWS", False):
        return f"the connection '{name}' leads to a Windows shell, and {REFUSED['winrm'].lower()}"
    if name in SUPPORTED:
        return ""
    why = REFUSED.get(name, "it is not known to send every command through a shell on the host")
    return f"the connection '{name}' cannot carry a transaction: {why}"
