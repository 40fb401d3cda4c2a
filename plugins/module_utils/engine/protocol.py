# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's socket: one JSON object a message (SOCK_SEQPACKET), answered by one. Only root may connect.

    request   {"op": "begin" | "commit" | ..., ...}      answer   {...} or {"error": {"class", "msg", "hint"}}
    request   {"op": "step", ...}                        answer   b"F" + the filter, or b"E" + "<class>: <sentence>"
              then b"L" with the listener's descriptor   answer   b"K", or b"E" + ...

The shim speaks the second form: it imports no json (it starts with every task).
"""

from __future__ import annotations

import array
import json
import socket
import typing as t

PATH = "/run/acid/agent.sock"
LARGEST = 1 << 17


def send(sock: socket.socket, message: dict[str, t.Any]) -> None:
    data = json.dumps(message, separators=(",", ":")).encode()
    # an answer may be longer than a message: a first one says how long
    sock.sendall(b"%d" % len(data))
    for at in range(0, len(data), LARGEST):
        sock.sendall(data[at : at + LARGEST])


def receive(sock: socket.socket) -> dict[str, t.Any]:
    """One message; ConnectionError when the other side has gone."""
    return receive_rest(sock, sock.recv(32))


def receive_rest(sock: socket.socket, length: bytes) -> dict[str, t.Any]:
    """The message of which the first part, its length, has come; ConnectionError when the other side has gone."""
    data, part = b"", length
    while part and len(data) < int(length):
        part = sock.recv(LARGEST)
        data += part
    if not part:
        raise ConnectionError("the other side has closed the socket")
    message: dict[str, t.Any] = json.loads(data)
    return message


def receive_descriptor(sock: socket.socket) -> tuple[bytes, int]:
    """A short message and the descriptor that came with it (-1: none)."""
    data, ancillary, _flags, _address = sock.recvmsg(16, socket.CMSG_SPACE(4))
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(content[:4])
            return data, fds[0]
    return data, -1
