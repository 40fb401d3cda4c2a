# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket

import pytest
from engine import protocol


@pytest.fixture
def ends():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield one, other
    one.close()
    other.close()


@pytest.mark.parametrize("size", [0, 10, 3 * protocol.LARGEST])
def test_what_is_sent_is_received(ends, size: int) -> None:
    one, other = ends
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    protocol.send(one, {"text": "x" * size})
    assert protocol.receive(other) == {"text": "x" * size}


@pytest.mark.parametrize("sent", [[], [b"20"], [b"20", b'{"a": '], [b"0"]])
def test_whoever_dies_in_the_middle_of_a_message_is_not_waited_for(ends, sent: list[bytes]) -> None:
    one, other = ends
    for part in sent:
        one.send(part)
    one.close()
    with pytest.raises((ConnectionError, ValueError)):
        protocol.receive(other)
