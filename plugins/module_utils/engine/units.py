# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine's two systemd units: their text, and putting them on a host and off it again.

Neither leaves a trace beside the units: times of the directories that are written to are put back. Both functions can be repeated,
and finish what a call that died has begun.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from . import whole
from .commands import run
from .errors import AcidError
from .kernel import sync_directory

AGENT = "acid-agent.service"
RECOVER = "acid-recover.service"
UNIT_DIR = "etc/systemd/system"
WANTS_DIR = "etc/systemd/system/sysinit.target.wants"
ACIDCTL = "/usr/local/lib/acid/current/acidctl"

# With this exit code the agent says that it has nothing to answer for any more: only then it is not started again.
AGENT_IDLE = 80

# No default dependencies: recovery at boot starts it before sysinit.target, and it must outlive what shutdown stops.
# Nice: each traced call of a step waits for the agent, so on a busy host it must not wait in a queue too.
# No sandboxing: it has to see the mounts that the steps see. KillMode=process: what it leaves holding listeners goes on holding them.
_AGENT_TEXT = f"""\
[Unit]
Description=acid.host agent: takes before-images for the steps of a transaction
Documentation=https://github.com/acid-host/acid.host
DefaultDependencies=no
RequiresMountsFor=/var/lib/acid /usr/local/lib/acid
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={ACIDCTL} agent
Restart=always
RestartSec=100ms
SuccessExitStatus={AGENT_IDLE}
RestartPreventExitStatus={AGENT_IDLE}
TimeoutStartSec=60
TimeoutStopSec=45
KillMode=process
FileDescriptorStoreMax=512
LimitNOFILE=1048576
TasksMax=infinity
Nice=-10
OOMScoreAdjust=-900
OOMPolicy=continue
UMask=0077
"""

# Before sysinit.target: no ordinary service has started yet from files that are about to be undone.
_RECOVER_TEXT = f"""\
[Unit]
Description=acid.host: undoes a transaction that a crash left open
Documentation=https://github.com/acid-host/acid.host
DefaultDependencies=no
ConditionPathExists=/var/lib/acid/journal.db
RequiresMountsFor=/var/lib/acid /usr/local/lib/acid
After=local-fs.target systemd-remount-fs.service
Before=sysinit.target systemd-tmpfiles-setup.service shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={ACIDCTL} recover --boot
TimeoutStartSec=infinity
KillMode=process
OOMScoreAdjust=-900
UMask=0077

[Install]
WantedBy=sysinit.target
"""

TEXTS = {AGENT: _AGENT_TEXT, RECOVER: _RECOVER_TEXT}


def install(*, root: str = "/") -> bool:
    """Writes both units and enables recovery; True when something changed (PID 1 has been told then).

    Raises AcidError when PID 1 cannot reload, OSError when the directory cannot be written.
    """
    folder = os.path.join(root, UNIT_DIR)
    os.makedirs(folder, exist_ok=True)
    changed = False
    for name, text in TEXTS.items():
        changed |= _write(os.path.join(folder, name), text)
    with _times_kept(folder):
        os.makedirs(os.path.join(root, WANTS_DIR), exist_ok=True)
    changed |= _link(os.path.join(root, WANTS_DIR, RECOVER), os.path.join("/", UNIT_DIR, RECOVER))
    if changed and root == "/":
        _reload()
    return changed


def uninstall(*, root: str = "/") -> bool:
    """Stops the agent and takes the units off; True when there was something."""
    folder, wants = os.path.join(root, UNIT_DIR), os.path.join(root, WANTS_DIR)
    if root == "/" and _managed():
        run(["systemctl", "stop", AGENT, RECOVER], timeout=60)
    changed = False
    for path in (os.path.join(wants, RECOVER), os.path.join(folder, RECOVER), os.path.join(folder, AGENT)):
        if os.path.lexists(path):
            with _times_kept(os.path.dirname(path)):
                os.unlink(path)
            changed = True
    with contextlib.suppress(OSError), _times_kept(folder):
        # Only when it is empty: others may want early units too.
        os.rmdir(wants)
    if changed and root == "/":
        _reload()
    return changed


def _write(path: str, text: str) -> bool:
    data = text.encode()
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as old:
        if old.read() == data:
            return False
    fresh = f"{path}.new"
    with _times_kept(os.path.dirname(path)):
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(descriptor, 0o644)
            whole.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(fresh, path)
        sync_directory(os.path.dirname(path))
    return True


def _link(path: str, target: str) -> bool:
    with contextlib.suppress(OSError):
        if os.readlink(path) == target:
            return False
    with _times_kept(os.path.dirname(path)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.symlink(target, path)
        sync_directory(os.path.dirname(path))
    return True


@contextlib.contextmanager
def _times_kept(folder: str) -> Iterator[None]:
    was = os.stat(folder)
    try:
        yield
    finally:
        os.utime(folder, ns=(was.st_atime_ns, was.st_mtime_ns))


def _managed() -> bool:
    """What sd_booted(3) asks."""
    return os.path.isdir("/run/systemd/system")


def _reload() -> None:
    if not _managed():
        return
    done = run(["systemctl", "daemon-reload"], timeout=90)
    if not done.ok:
        hint = "See `systemctl status` and `journalctl -b -u init.scope`."
        raise AcidError(f"systemd did not take over the engine's units: {done.complaint}.", hint=hint)
