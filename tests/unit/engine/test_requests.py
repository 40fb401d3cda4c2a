# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture's name is a test's argument)
"""Who is answered on the agent's socket: root, by the credentials that the kernel has of the peer, and nobody else. And what a shim leaves
that is killed while it begins its step."""

from __future__ import annotations

import array
import json
import os
import socket
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import requests as module
from engine.errors import StaleToken, WrongState
from engine.journal import Journal
from engine.requests import Requests
from engine.situation import Situation
from engine.work import Work

sys.path.insert(0, str(Path(__file__).resolve().parent))

from played import opened  # noqa: F401

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


# A shim that is killed early


class Begun:
    """An open transaction of which attaching raises `error`."""

    def __init__(self, error: Exception | None) -> None:
        self.id, self._error = "t", error
        self.processes = types.SimpleNamespace(tracers=[])

    def check(self, _token: int) -> None:
        pass

    def start_step(self, _info: object, _process: int) -> object:
        return object()

    def attach(self, *_of: object, **_more: object) -> None:
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    ("sent", "error", "answered"),
    [
        (b"L", ProcessLookupError(3, "No such process"), b"E"),  # killed when its listener was on its way
        (b"L", WrongState("a test says so"), b"E"),
        (b"X", None, b""),
    ],
)
def test_a_listener_that_is_not_served_is_closed(requests: Requests, sent: bytes, error: Exception | None, answered: bytes) -> None:
    requests._situation.open = Begun(error)  # type: ignore[assignment]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener, kept = os.pipe()
    serving = threading.Thread(target=requests.serve, args=(ours,))
    with theirs:
        theirs.settimeout(20)
        serving.start()
        theirs.sendall(b'{"op":"step","tx":"t","token":0,"step":"e30="}')
        assert theirs.recv(1 << 17)[:1] == b"F"
        theirs.sendmsg([sent], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
        os.close(listener)
        assert theirs.recv(1 << 17)[:1] == answered
        serving.join(20)
    with pytest.raises(BrokenPipeError):  # nobody reads it any more
        os.write(kept, b"x")
    os.close(kept)


def test_systemd_has_a_listener_before_it_is_served(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer whose shim has been killed ends at once, and closes it: by then its number may be another file's."""
    given: list[object] = []
    monkeypatch.setattr(module.systemd_notify, "store", "the store")
    begun = Begun(None)
    monkeypatch.setattr(begun, "attach", lambda *_of, **more: given.append(more["kept"]))
    requests._situation.open = begun  # type: ignore[assignment]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, _write = os.pipe()
    with theirs:
        serving = threading.Thread(target=requests.serve, args=(ours,))
        serving.start()
        theirs.sendall(b'{"op":"step","tx":"t","token":0,"step":"e30="}')
        theirs.recv(1 << 17)
        theirs.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read]))])
        assert theirs.recv(10) == b"K"
        serving.join(20)
    assert given == ["the store"]
    os.close(read)
    os.close(_write)


@pytest.mark.parametrize(
    "op", ["commit", "rollback", "savepoint", "armed", "compensate", "doom", "denied", "reboot", "rebooted", "confirm"]
)
def test_a_stale_token_is_let_nowhere(opened, tmp_path: Path, op: str) -> None:
    """Nor is it a sign of life (I6). A step is refused likewise: tests/host/test_bad_input.py."""
    transaction, _directory = opened
    work = Work()
    situation = Situation(transaction.journal, work)
    situation.open = transaction
    before, renewed = transaction.journal.get(transaction.id), []
    transaction.lease.renew = lambda **_more: renewed.append(op)
    request = {"op": op, "tx": transaction.id, "token": transaction.token + 1, "steps": [], "name": "s", "id": "c"}
    with pytest.raises(StaleToken):
        Requests(situation, work)._answer_one(op, request)
    assert transaction.journal.get(transaction.id) == before
    assert not renewed and not transaction.doomed
