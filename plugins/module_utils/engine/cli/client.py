# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Talk to the agent, and start it when there is none."""

from __future__ import annotations

import os
import socket
import sys
import time
import typing as t

from .. import protocol
from ..commands import run
from ..errors import AgentUnavailable
from ..units import AGENT

_PATIENCE = 15.0


def connect() -> socket.socket | None:
    """A connection, or None when no agent listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(protocol.PATH)
    except OSError:
        sock.close()
        return None
    return sock


def listens() -> bool:
    sock = connect()
    if sock is not None:
        sock.close()
    return sock is not None


def ask(request: dict[str, t.Any]) -> dict[str, t.Any] | None:
    """The agent's answer; None when no agent runs. AgentUnavailable when it dies meanwhile."""
    sock = connect()
    if sock is None:
        return None
    with sock:
        try:
            protocol.send(sock, request)
            return protocol.receive(sock)
        except OSError as error:
            raise AgentUnavailable(
                "The agent went away during '%s'." % request["op"], hint="systemd starts it again; look at acidctl list."
            ) from error


def answers(*, seconds: float = 1.5) -> bool | None:
    """Whether the agent answers at all; None when there is none."""
    sock = connect()
    if sock is None:
        return None
    with sock:
        sock.settimeout(seconds)
        try:
            protocol.send(sock, {"op": "ping"})
            protocol.receive(sock)
            return True
        except OSError:
            return False


def start_and_ask(request: dict[str, t.Any], *, may_repeat: t.Callable[[], bool]) -> dict[str, t.Any]:
    """Start the agent and ask it. One on its way out may take the connection and never answer: then ask the next one, if nothing has
    come of it (`may_repeat`)."""
    for _attempt in range(5):
        start()
        try:
            answer = ask(request)
        except AgentUnavailable:
            if not may_repeat():
                raise
            answer = None
        if answer is not None:
            return answer
        time.sleep(0.1)
    raise AgentUnavailable("The agent ends again and again before it answers '%s'." % request["op"], hint="See journalctl -u acid-agent.")


def start() -> None:
    """Start the agent by systemd, else by ourselves, and wait until it listens."""
    managed = os.path.isdir("/run/systemd/system")
    if not managed:
        _spawn()
    end = time.monotonic() + _PATIENCE
    while connect() is None:
        if managed:  # again and again: an agent on its way out still counts as started
            done = run(["systemctl", "start", AGENT], timeout=60)
            if not done.ok:
                raise AgentUnavailable("The agent did not start: %s." % done.complaint, hint="See journalctl -u acid-agent.")
            if connect() is not None:
                return
        if time.monotonic() > end:
            raise AgentUnavailable("The agent does not listen on %s." % protocol.PATH, hint="See journalctl -u acid-agent.")
        time.sleep(0.05)


def _spawn() -> None:
    """Without systemd: a process of its own session. Nobody starts it again when it dies, and its listeners die with it."""
    if os.fork():
        return
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.execv(sys.argv[0], [sys.argv[0], "agent"])
