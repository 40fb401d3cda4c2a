# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a call that waits to the images it needs: each `does` of calls.py has a handler of that name in one of four classes.

A handler returns, and the call may run; or it raises an error other than WillFail, and the caller must be answered EIO: no image, no
change.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from ..model import IRREVERSIBLE
from .caller import Arguments, Caller, WillFail
from .calls import CALLS, Call
from .contents import Contents
from .images import Images
from .metadata import Metadata
from .names import Names
from .newborn import Newborn
from .notify import Note
from .resolve import Elsewhere, Resolver
from .subjects import InStore, Pretended
from .surroundings import Surroundings
from .unlisted import policy_for

#: Programs that empty a whole tree, or change the owner of all that is in it (rsync --delete, chown -R), come to a store in it too: to them
#: it is as good as not there.
_PRETENDED = ("remove", "mode", "owner", "basic", "xattr", "flags")


class Capture:
    """Handles calls for one transaction. Not thread-safe: the caller holds the transaction's lock around `handle`."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self._newborn = Newborn(images)
        self._caller = Caller(self.resolver(), self._newborn)
        #: the thread makes a call: all that needs no lock
        self.back = self._caller.turns.back
        names = Names(images, self._caller)
        self._contents = Contents(images, self._caller, names)
        changing = (names, self._contents, Metadata(images, self._caller, self._contents))
        parts = (*changing, Surroundings(images, self._caller, names))
        #: by `does`: the handler, and whether such a call takes turns with those of other threads
        self._handlers: dict[str, tuple[t.Callable[[Arguments, Call], None], bool]] = {
            call.does: next((getattr(part, call.does), part in changing) for part in parts if hasattr(part, call.does))
            for call in CALLS
            if call.does != "refuse"
        }

    def resolver(self) -> Resolver:
        """A new step's resolver."""
        store = self.images.store

        def policy_of(dev: int, thread: int) -> str | None:
            fs = store.file_system(dev)
            return policy_for(thread, dev) if fs is None else fs.policy

        return Resolver(self.images.reader, policy_of)

    def epoch(self, epoch: int, step: int) -> None:
        self._caller.turns.drain()
        self._contents.forget()
        self._newborn.forget()
        self._caller.workplace.let_go()
        self.images.epoch(epoch, step)

    def before_waiting(self, let_run: t.Callable[[], None] | None) -> None:
        """What lets the calls run that were handled and still wait, should the next one have to wait for theirs."""
        self._caller.turns.let_run = let_run

    def handle(self, note: Note, call: Call, step: int, resolver: Resolver) -> None:
        """Take all images that `call` needs. It is to be let run before the lock is given back. Pretended: it is not to be run, and its
        caller to be told that it has succeeded; Answered: that it has failed."""
        images, caller = self.images, self._caller
        images.step, images.thread = step, note.thread
        caller.resolver, caller.thread = resolver, note.thread
        handler, takes_turn = self._handlers[call.does]
        images.raced = caller.turns.take(note.thread, note.number) if takes_turn else False
        if images.pending:
            images.settle()
        try:
            try:
                handler(note.arguments, call)
            except WillFail:  # so it looks, and a directory may be under way that makes the path good
                if images.raced and caller.turns.alone():
                    handler(note.arguments, call)
        except WillFail:
            pass
        except InStore:
            if call.does in _PRETENDED:
                raise Pretended from None
            raise
        except Elsewhere:
            images.tell(IRREVERSIBLE, "%s on a FUSE or network file system" % call.name)

    @property
    def durable(self) -> bool:
        """Whether images must be on the disk before the change is let happen (`durability: power`)."""
        return self.images.store.durable

    def sync(self) -> None:
        self.images.log.sync()

    def settle(self) -> None:
        """No call is under way: a step has ended."""
        self._caller.turns.drain()
        self._caller.workplace.let_go()
        self.images.settle_all()

    def close(self) -> None:
        """The transaction ends: its memory of 100,000 places is worth having back before the undo."""
        self._caller.workplace.let_go()
        self.images.forget()

    def inherited(self, process: int, step: int) -> None:
        """What a step's first process has open already for writing on 0 to 2 (a redirection outside the shim) is imaged before it runs."""
        self._caller.resolver, self._caller.thread = self.resolver(), process
        self.images.step, self.images.thread = step, process
        for dfd in range(3):
            with contextlib.suppress(WillFail, OSError):
                with open("/proc/%d/fdinfo/%d" % (process, dfd), encoding="ascii") as f:
                    flags = next(int(line.split()[1], 8) for line in f if line.startswith("flags:"))
                place = self._caller.inode(dfd) if flags & (os.O_WRONLY | os.O_RDWR) else None
                if place is not None:
                    self._contents.open_place(place, flags & ~os.O_CREAT)
