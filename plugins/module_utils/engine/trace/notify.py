# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The listener: receive a notification, answer it (seccomp_unotify(2), include/uapi/linux/seccomp.h).

    listener = Listener(fd);  note = listener.receive();  listener.answer(note.id, 0)

Each id is written to a slot of shared memory before anything else happens with it: an agent that dies before its answer leaves the id to
its successor, which answers EIO (TRACE.md 10). Without that the caller would wait for ever. There are BATCH slots: so many calls may be
received before the first of them is answered. An agent that is killed while the kernel wakes it up has received a call and can write
nothing down any more; on a busy machine that is no rare moment. The kernel numbers a listener's calls one by one (kernel/seccomp.c,
seccomp_next_notify_id), so the successor also answers those next to the newest that it knows of.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import struct
import typing as t

from .. import kernel

_RECEIVE, _SEND, _ID_VALID, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40082104
_CONTINUE, _SYNC_WAKE_UP = 1, 1
_HEAD, _ARGUMENTS = struct.Struct("<QI4xiI"), struct.Struct("<6Q")  # struct seccomp_notif: id, pid, flags, nr, arch; ip; args
_ARGUMENTS_AT = 32
_ANSWER, _ID = struct.Struct("<QqiI"), struct.Struct("=Q")
_ZERO = bytes(80)
#: numbers that are tried beyond the newest known one: callers that were interrupted before anybody received them leave gaps
_AHEAD, _HALF, _WHOLE = 4096, 1 << 63, 1 << 64
#: calls of one listener that are handled together where each group needs a write to the disk
BATCH = 16


class Note(t.NamedTuple):
    """One call that waits: `thread` as the agent's namespace counts it; `audit` the ABI; six raw arguments."""

    id: int
    thread: int
    number: int
    audit: int
    arguments: tuple[int, int, int, int, int, int]


_new_note: t.Callable[..., Note] = t.cast(t.Any, tuple.__new__)  # a third of the time of Note(...)


class Gone(Exception):
    """The last process behind the listener has ended."""


def blocking_receive_ends() -> bool:
    """Whether a receive without poll returns when the last process is gone (about Linux 6.11; seen on 6.18)."""
    release = os.uname().release.split(".")
    return (int(release[0]), int(release[1].split("-")[0])) >= (6, 12)


class Listener:
    """One step's listener. `slots` is a writable buffer of 8 bytes for each of BATCH ids under way."""

    def __init__(self, fd: int, slots: memoryview) -> None:
        self.fd, self._slots = fd, slots
        self._waiting: select.poll | None = None
        self._received = bytearray(80)
        self._poll: select.poll | None = None
        if not blocking_receive_ends():
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        # The flag lets the kernel hand the CPU over directly (6.6). It is an int by value: fcntl.ioctl would pass it as such, but
        # the request number does not fit its signed int on older Pythons.
        kernel.libc.ioctl(fd, ctypes.c_ulong(_SET_FLAGS), ctypes.c_ulong(_SYNC_WAKE_UP))

    def receive_all(self) -> list[Note]:
        """The next call, and those that wait already, BATCH at most."""
        notes = [self.receive()]
        if self._waiting is None:
            self._waiting = select.poll()
            self._waiting.register(self.fd, select.POLLIN)
        try:
            while len(notes) < BATCH and any(event & select.POLLIN for _fd, event in self._waiting.poll(0)):
                notes.append(self.receive(len(notes)))
        except Gone:
            pass  # to be met again when these are answered
        return notes

    def receive(self, slot: int = 0) -> Note:
        """The next call; waits for it. Gone when there will be none."""
        buffer = self._received
        while True:
            if self._poll is not None:
                events = self._poll.poll()
                if events and events[0][1] & (select.POLLHUP | select.POLLERR | select.POLLNVAL) and not events[0][1] & select.POLLIN:
                    raise Gone
            buffer[:] = _ZERO
            try:
                fcntl.ioctl(self.fd, _RECEIVE, buffer)
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                if error.errno == errno.ENOENT:
                    if self._poll is None and self._hung_up():
                        raise Gone from None
                    continue  # the caller died between the wake-up and the receive
                raise Gone from error
            head = _HEAD.unpack_from(buffer)
            _ID.pack_into(self._slots, 8 * slot, head[0])
            return _new_note(Note, (*head, _ARGUMENTS.unpack_from(buffer, _ARGUMENTS_AT)))

    def _hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        events = poll.poll(0)
        return bool(events) and not events[0][1] & select.POLLIN

    def proceed(self, id_: int) -> None:
        """Let the kernel run the call as it is."""
        self._send(_ANSWER.pack(id_, 0, 0, _CONTINUE))

    def pretend(self, id_: int) -> None:
        """Answer 0, and do not run the call."""
        self._send(_ANSWER.pack(id_, 0, 0, 0))

    def refuse(self, id_: int, number: int) -> None:
        """Make the call fail with errno `number`."""
        self._send(_ANSWER.pack(id_, 0, -number, 0))

    def _send(self, answer: bytes) -> None:
        try:
            fcntl.ioctl(self.fd, _SEND, answer)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINPROGRESS):
                raise


def answer_orphans(fd: int, ids: t.Sequence[int], number: int) -> None:
    """Fail the calls that a dead agent had received and not answered; `ids`: those that it wrote down. To one that was answered, or that
    nobody has received yet, the kernel takes no answer (ENOENT, EINPROGRESS)."""
    if not ids:
        return
    newest = max(ids, key=lambda id_: (id_ - ids[0] + _HALF) % _WHOLE)  # they begin anywhere in 64 bits
    for id_ in (*ids, *((newest + ahead) % _WHOLE for ahead in range(1, _AHEAD))):
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, _SEND, _ANSWER.pack(id_, 0, -number, 0))
