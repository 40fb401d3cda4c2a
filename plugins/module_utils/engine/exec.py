# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shim: `acidctl exec --tx ID --token N --step BASE64 [--user NAME] -- ARGV...`

It asks the agent for a step, installs the filter, hands the listener over, and becomes ARGV. From then on each traced call of that process
and of all that it starts waits for the agent. It starts with every task, so it imports as little as it can (no json, no socket.py, no
argparse).

A step that may not run ends here: one line on stderr, exit code 97, and ARGV never started.
"""

from __future__ import annotations

import _socket
import ctypes
import os
import sys

REFUSED = 97
PATH = "/run/acid/agent.sock"
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE_RECV = 1, 1 << 3, 1 << 5
_EBUSY, _EINVAL = 16, 22


def _refuse(sentence: str) -> None:
    sys.stderr.write("acid: %s\n" % sentence)
    sys.stderr.flush()
    os._exit(REFUSED)


def main(argv: list[str]) -> int:
    """Never returns when all goes well."""
    options, command = _parse(argv)
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
    try:
        sock.connect(PATH)
        sock.send(
            b'{"op":"step","tx":"%s","token":%d,"step":"%s"}' % (options["tx"].encode(), int(options["token"]), options["step"].encode())
        )
        answer = sock.recv(1 << 17)
    except OSError as error:
        _refuse("agent-unavailable: the agent does not answer on %s (%s). Look at 'systemctl status acid-agent'." % (PATH, error.strerror))
    _check(answer, b"F")
    # What was open before the filter is not traced; of 0 to 2 the agent takes images (TRACE.md 7).
    keep = sock.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    user = _User(options["user"]) if "user" in options else None
    listener = _install(answer[1:])
    sock.sendmsg([b"L"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))])
    os.close(listener)
    _check(sock.recv(1 << 17), b"K")
    sock.close()
    environment = dict(os.environb)
    if user is not None:
        try:
            environment = user.become()
        except (OSError, ValueError) as error:
            _refuse("usage: the step cannot run as %s: %s." % (options["user"], error))
    try:
        os.execvpe(os.fsencode(command[0]), [os.fsencode(word) for word in command], environment)
    except OSError as error:
        sys.stderr.write("acid: cannot run %s: %s\n" % (command[0], error.strerror))
        os._exit(127 if error.errno == 2 else 126)


def _parse(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    options: dict[str, str] = {}
    at = 0
    while at + 1 < len(argv) and argv[at] != "--":
        options[argv[at].lstrip("-")] = argv[at + 1]
        at += 2
    if at + 1 >= len(argv) or not {"tx", "token", "step"} <= set(options) or not options["token"].isdigit():
        _refuse("usage: acidctl exec --tx ID --token N --step BASE64 [--user NAME] -- ARGV...")
    return options, argv[at + 1 :]


def _check(answer: bytes, good: bytes) -> None:
    if answer[:1] != good:
        _refuse(
            answer[1:].decode(errors="replace")
            or "agent-unavailable: the agent closed the connection. Look at 'systemctl status acid-agent'."
        )


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def _install(code: bytes) -> int:
    """Install the filter without no_new_privs (root may), so that sudo and su inside the step go on working."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    number = _SECCOMP[os.uname().machine]
    for flags in (_NEW_LISTENER | _WAIT_KILLABLE_RECV, _NEW_LISTENER):  # the second flag is of Linux 5.19
        fd = int(libc.syscall(number, _SET_MODE_FILTER, flags, ctypes.byref(program)))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != _EINVAL:
            break
    if ctypes.get_errno() == _EBUSY:
        _refuse(
            "trace-unavailable: this process already has a seccomp listener: that of another transaction, or a container tool's. "
            "Run the inner one without acid.host."
        )
    _refuse("trace-unavailable: the kernel refused the filter: %s." % os.strerror(ctypes.get_errno()))
    return -1


class _User:
    """The login user's view, as of the process that called become: environment, groups, umask, limits and working directory."""

    def __init__(self, name: str) -> None:
        import pwd

        try:
            self._entry = pwd.getpwnam(name)
        except KeyError:
            _refuse("usage: there is no user %s on this host." % name)
        self._process = self._ancestor()

    def _ancestor(self) -> int:
        """The nearest ancestor that is wholly this user's: sudo itself keeps the user's real id, with root's groups and limits of its
        own."""
        process = os.getppid()
        while process > 1:
            status = self._status(process)
            if {int(uid) for uid in status["Uid"].split()} == {self._entry.pw_uid}:
                return process
            process = int(status["PPid"])
        _refuse("usage: no process of user %s called this." % self._entry.pw_name)
        return 1

    @staticmethod
    def _status(process: int) -> dict[str, str]:
        with open("/proc/%d/status" % process, encoding="utf-8", errors="surrogateescape") as f:
            return dict(line.rstrip("\n").split(":", 1) for line in f if ":" in line)

    def become(self) -> dict[bytes, bytes]:
        """Become the user; returns the environment."""
        import resource

        process, entry = self._process, self._entry
        status = self._status(process)
        for limit in range(16):
            try:
                resource.setrlimit(limit, resource.prlimit(process, limit))
            except (ValueError, OSError):
                pass
        with open("/proc/%d/environ" % process, "rb") as f:
            environment = dict(pair.split(b"=", 1) for pair in f.read().split(b"\0") if pair.find(b"=") > 0)
        os.umask(int(status["Umask"], 8))
        os.setgroups([int(group) for group in status["Groups"].split()])
        os.setresgid(*[int(status["Gid"].split()[0])] * 3)
        directory = os.open("/proc/%d/cwd" % process, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(directory)
        os.close(directory)
        os.setresuid(*[entry.pw_uid] * 3)
        return environment
