# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Undo: make the earliest images true (I2, docs/adr/0001).

    outcome = undo(store, log, wanted, epoch=0)

Each act first asks what is there, so that a crash anywhere is mended by running it again: places, inodes, the kernel's values,
verification. Only
when all is exact is the log marked Undone, and the store's links are dropped, so that link counts are as before.
"""

from __future__ import annotations

import os
import re
import typing as t

from . import kernel
from .clearing import names_in, unlink_locked
from .errors import AcidError
from .records import Undone
from .reserve import is_full
from .store import Store
from .undoing.ground import Ground, Outcome
from .undoing.inodes import Inodes
from .undoing.places import Places
from .undoing.room import Room
from .undolog import Writer
from .wanted import Inode, Place, Wanted


class Held(t.NamedTuple):
    """What is held back, and is no more in `wanted` (I5); `stored`: names (file system, name) in the store of its images; `told`: these
    places and the merged ones, of which the verdict tells what became of them."""

    places: tuple[Place, ...]
    inodes: tuple[Inode, ...]
    stored: frozenset[tuple[int, bytes]]
    told: frozenset[Place] = frozenset()


NOTHING_HELD = Held((), (), frozenset())
#: names in the store (store.py): of links and copies, and of what an undo has there for a while
_IMAGE, _STAGED = re.compile(rb"c?[0-9]+"), (b"s-", b"t-", b"n-")


def undo(
    store: Store,
    log: Writer,
    wanted: Wanted,
    *,
    epoch: int,
    held: Held = NOTHING_HELD,
    spared: t.Collection[bytes] = frozenset(),
    since: int = 1 << 63,
) -> Outcome:
    """Back to the start of `epoch`. The transaction's processes are dead, and no step runs. `spared`: paths of what others put into
    directories that go. `since`: when its first step began, in nanoseconds."""
    ground = Ground(store, log, wanted, since=since, told=held.told)
    try:
        try:
            places, inodes = _restore(ground)
        except (OSError, AcidError) as error:
            if not is_full(error):
                raise
            Room(ground, held.inodes, spared, since).make()
            ground.again()
            places, inodes = _restore(ground)
        ground.has_made_room = True  # from here on all is a difference
        inodes.values()
        known = frozenset(ground.outcome.paths)
        places.verify(known)
        inodes.verify(known)
        for number, fs in ground.file_systems.items():  # what was undone is on the disk before its images go, and before anybody says so
            if not ground.attempt(fs.mount_point, lambda: kernel.syncfs(fs.mount_fd), "not all that was undone there is on the disk"):  # noqa: B023
                inodes.forget_what_is_cached(number)
        _conclude(ground, log, epoch, held)
    finally:
        ground.close()
    return ground.outcome


def look_again(store: Store, log: Writer, wanted: Wanted, outcome: Outcome, *, epoch: int, held: Held = NOTHING_HELD) -> None:
    """Probes have put files back since. What they made as it was, though by another inode, is no difference any more."""
    ground = Ground(store, log, wanted, told=held.told)
    try:
        ground.outcome, ground.has_made_room = outcome, True
        inodes = Inodes(ground, Places(ground))
        for line, inode in list(outcome.replaced.items()):
            if not inodes.is_replaced(inode):
                del outcome.replaced[line]
                outcome.differs.remove(line)
        _conclude(ground, log, epoch, held)
    finally:
        ground.close()


def _conclude(ground: Ground, log: Writer, epoch: int, held: Held) -> None:
    """Without a difference the images are done with; with one they stay, for the undo that is asked for again."""
    if not ground.outcome.differs:
        log.append(Undone(epoch, held.places, held.inodes))
        log.write_head(durable=True)
        drop_images(ground, held.stored, whole=not epoch)


def _restore(ground: Ground) -> tuple[Places, Inodes]:
    places = Places(ground)
    inodes = Inodes(ground, places)
    places.restore()
    inodes.restore()
    return places, inodes


def drop_images(ground: Ground, keep: frozenset[tuple[int, bytes]], *, whole: bool) -> None:
    """Unlink what the store holds for the epochs that were undone: their links and copies, and what undo staged. Earlier epochs' images
    stay, and what is to be kept, and trees in quarantine until gc. With the `whole` transaction undone there are no earlier ones: an image
    that no record names goes too, whose agent died between the two."""
    for number, fs in ground.file_systems.items():
        directory = ground.store.existing_directory(fs)
        if directory < 0:
            continue
        undone = {name for of, name in ground.wanted.stored if of == number}
        for name in names_in(directory):
            is_void = (name in undone or (whole and _IMAGE.fullmatch(name))) and (number, name) not in keep
            if not is_void and not name.startswith(_STAGED):
                continue
            path = fs.path_of(directory) + b"/" + name
            ground.attempt(path, lambda: _drop(directory, name), "an image is still in the store")  # noqa: B023  (called at once)


def _drop(directory: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:  # of an earlier epoch, and the directory that it was in is no more
        os.rename(name, b"q-" + name, src_dir_fd=directory, dst_dir_fd=directory)
    except PermissionError:
        unlink_locked(directory, name)
