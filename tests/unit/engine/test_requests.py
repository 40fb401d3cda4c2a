# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is answered on the agent's socket: root, by the credentials that the kernel has of the peer, and nobody else."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine.journal import Journal
from engine.requests import Requests
from engine.situation import Situation
from engine.work import Work

NOBODY = 65534


@pytest.fixture
def requests(tmp_path: Path) -> Iterator[Requests]:
    journal, work = Journal(str(tmp_path / "journal.db")), Work()
    yield Requests(Situation(journal, work), work)
    journal.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Without a file, whose mode would keep others out: what is looked at here stands behind that."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(f"\0acid-test-{os.getpid()}")
        server.listen(1)
        server.settimeout(20)
        yield server


def ask(address: bytes, messages: list[bytes]) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(20)
        try:
            client.connect(address)
            for message in messages:
                client.sendall(message)
            return client.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def answer(requests: Requests, listener: socket.socket, messages: list[bytes], *, uid: int, gid: int) -> bytes:
    """What a process of that user gets."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.write(writer, ask(listener.getsockname(), messages) or b"nothing")
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    client, _address = listener.accept()
    requests.serve(client)
    got = os.read(reader, 200)
    os.close(reader)
    assert os.waitpid(child, 0)[1] == 0
    assert client.fileno() == -1, "the connection is left open"
    return got


PING = json.dumps({"op": "ping"}).encode()
FORMS = {"request": [b"%d" % len(PING), PING], "step": [b'{"op":"step","tx":"","token":0,"step":"e30="}']}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("gid", [0, NOBODY])
def test_another_user_gets_no_answer(requests: Requests, listener: socket.socket, form: str, gid: int) -> None:
    assert answer(requests, listener, FORMS[form], uid=NOBODY, gid=gid) == b"nothing"


@pytest.mark.parametrize(("form", "first"), [("request", b"2"), ("step", b"Eno-transaction: ")])
def test_root_gets_one(requests: Requests, listener: socket.socket, form: str, first: bytes) -> None:
    """The length of an answer, and a refusal."""
    assert answer(requests, listener, FORMS[form], uid=0, gid=0).startswith(first)
