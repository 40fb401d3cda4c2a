# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The door beside the socket: a file by which a plain shell can ask the agent to roll back, when the host command cannot run (ADR 20).

    open(tx, token, uid)   when a transaction begins: an empty file that root, and whom the controller logs in as (`uid`), may write
    asked()                what has been asked since, once: the agent looks each second
    tell(tx, answer)       the answer, in a file that the same two may read; `is_awaited` while it may still be read
    tidy(tx)               no door is left but that of `tx`

    ask     acid rollback TX TOKEN SECRET end\\n      answer     one line of JSON, as `acidctl rollback --json` prints it

A step may have broken Python, sqlite3, sudo or PATH: what is needed here is a login, /bin/sh and its builtins. Only a rollback goes through
here, of the open transaction, by who has the secret that begin gave to the controller: whoever else runs as the login's user cannot ask.
A line counts when it is whole, so that half of one, or two at once, are nothing. Nothing is followed or waited for: directories are
root's, and what is opened is looked at before it is read. The secret lies where only root can read it, for the agent's successor.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import stat
import time
import typing as t

#: Root's, 0700: secrets, and the doors of those who log in as root.
PRIVATE = "/run/acid/door"
#: Of all others: root's, and 0711.
PUBLIC = "/run/acid-door"

LARGEST = 512
READ_WITHIN = 10.0  # seconds, in which the controller will have read the answer


class Asked(t.NamedTuple):
    tx: str
    token: int


class _Known(t.NamedTuple):
    token: int
    uid: int
    secret: str


class Door:
    """Used by the agent's loop, and by whoever holds `Situation.control`."""

    def __init__(self, private: str = PRIVATE, public: str = PUBLIC) -> None:
        self._private, self._public = private, public
        self._known: dict[str, _Known] = {}
        self._taken: set[str] = set()
        self._told = 0.0

    def adopt(self) -> None:
        """Those of an agent that died. What they were of may be over in a moment, and its controller may not have asked yet."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._private):
                if name.endswith(".secret"):
                    with contextlib.suppress(OSError, ValueError), open(os.path.join(self._private, name)) as file:
                        token, uid, secret = file.read().split()
                        self._known[name[: -len(".secret")]] = _Known(int(token), int(uid), secret)
                        self._told = time.monotonic()

    def open(self, tx: str, token: int, uid: int) -> dict[str, str]:
        """What the controller has to know. OSError: there is none, and the lease has to do."""
        known = _Known(token, uid, secrets.token_hex(16))
        _make(self._private, 0o700)
        if uid:
            _make(self._public, 0o711)
        _write(self._secret(tx), "%d %d %s\n" % known, uid=0)
        ask = self._ask(tx, known)
        _write(ask, "", uid=uid)
        self._known[tx] = known
        return {"file": ask, "secret": known.secret}

    def asked(self) -> Asked | None:
        for tx, known in list(self._known.items()):
            if tx not in self._taken and _is_asked(_read(self._ask(tx, known)), tx, known):
                self._taken.add(tx)
                return Asked(tx, known.token)
        return None

    def tell(self, tx: str, answer: dict[str, t.Any]) -> None:
        """Raises nothing: the undo does not depend on whether anybody hears of it."""
        known = self._known.get(tx)
        if known is None:
            return
        self._told = time.monotonic()
        told = self._ask(tx, known) + ".told"
        with contextlib.suppress(OSError):
            _write(told + ".new", json.dumps(answer) + "\n", uid=known.uid)
            os.rename(told + ".new", told)

    def is_awaited(self) -> bool:
        return bool(self._told) and time.monotonic() - self._told < READ_WITHIN

    def tidy(self, tx: str | None) -> None:
        for old in [known for known in self._known if known != tx]:
            ask = self._ask(old, self._known.pop(old))
            for path in (ask, ask + ".told", self._secret(old)):
                with contextlib.suppress(OSError):
                    os.unlink(path)
        if not self._known:
            for folder in (self._private, self._public):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    def _secret(self, tx: str) -> str:
        return os.path.join(self._private, tx + ".secret")

    def _ask(self, tx: str, known: _Known) -> str:
        return os.path.join(self._public if known.uid else self._private, tx)


def _is_asked(text: bytes, tx: str, known: _Known) -> bool:
    words = text.split(b" ")
    whole = [b"acid", b"rollback", tx.encode(), b"%d" % known.token, b"", b"end\n"]
    secret, words[4:5] = (words[4] if len(words) == len(whole) else b""), [b""]
    return words == whole and hmac.compare_digest(secret, known.secret.encode())


def _read(path: str) -> bytes:
    """Nothing, where it is not the file that we made."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, LARGEST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _make(folder: str, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, 0, 0)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _write(path: str, text: str, *, uid: int) -> None:
    """A file anew, 0600, of that user's. Its directory is root's."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o600)
        os.fchown(descriptor, uid, -1)
        file.write(text)
