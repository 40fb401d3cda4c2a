# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the log says was so at the start of an epoch: for each place and inode the earliest image from then on (docs/adr/0001).

    wanted = read(directory, epoch=3)

Pure: it reads the log and touches nothing else.
"""

from __future__ import annotations

import dataclasses
import typing as t

from . import formats
from .attributes import NONE, Attributes
from .records import (
    COPY,
    LINK,
    Alias,
    Basic,
    Content,
    DirectorySeen,
    Dropped,
    Entry,
    EpochStarted,
    FileSystemSeen,
    Flags,
    Image,
    Keep,
    Left,
    LeftContent,
    LeftPlace,
    Met,
    MetContent,
    MetPlace,
    Sealed,
    Undone,
    UndoRun,
    Value,
    Xattrs,
)
from .undolog import Reader
from .xattrs import pairs_of_mode

#: (file system number, handle)
Inode = tuple[int, bytes]
#: (directory number, name)
Place = tuple[int, bytes]
#: (inode number, birth time)
Identity = tuple[int, int]


@dataclasses.dataclass
class AfterDigest:
    """What the steps from the epoch asked for on left (I5). Sets of steps are bits: 1 << step."""

    places: dict[Place, LeftPlace] = dataclasses.field(default_factory=dict)
    contents: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    #: steps that had hold of an inode: by its handle from their before-images, by identity from the places where they left it
    touched: dict[Inode, int] = dataclasses.field(default_factory=dict)
    standing: dict[Identity, int] = dataclasses.field(default_factory=dict)
    #: steps that had hold of a place
    named: dict[Place, int] = dataclasses.field(default_factory=dict)
    #: what undos to savepoints wrote, and when the last of them ended
    undone: dict[Inode | Place, int] = dataclasses.field(default_factory=dict)
    #: what steps found of what earlier ones had hold of, and what those had left there
    met: dict[Inode, list[Met]] = dataclasses.field(default_factory=dict)
    met_places: dict[Place, list[tuple[MetPlace, LeftPlace | None]]] = dataclasses.field(default_factory=dict)
    met_handles: dict[Inode, int] = dataclasses.field(default_factory=dict)
    #: the images that were taken of it then
    met_images: dict[Inode, Content | Keep] = dataclasses.field(default_factory=dict)
    #: of files that can be merged, by path: (what a step found, what the one before had left)
    met_contents: dict[bytes, list[tuple[bytes, bytes | None]]] = dataclasses.field(default_factory=dict)
    sealed: dict[int, Sealed] = dataclasses.field(default_factory=dict)
    undo_runs: list[UndoRun] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Wanted:
    """The state to bring back. `directories` and `file_systems` are of the whole log; the images begin with the epoch asked for."""

    file_systems: dict[int, FileSystemSeen] = dataclasses.field(default_factory=dict)
    directories: dict[int, DirectorySeen] = dataclasses.field(default_factory=dict)
    entries: dict[tuple[int, bytes], Entry] = dataclasses.field(default_factory=dict)
    basics: dict[Inode, Basic] = dataclasses.field(default_factory=dict)
    xattrs: dict[Inode, Xattrs] = dataclasses.field(default_factory=dict)
    flags: dict[Inode, Flags] = dataclasses.field(default_factory=dict)
    contents: dict[Inode, Content] = dataclasses.field(default_factory=dict)
    keeps: dict[Inode, Keep] = dataclasses.field(default_factory=dict)
    values: dict[bytes, Value] = dataclasses.field(default_factory=dict)
    #: store names of the images: (file system, name)
    stored: list[tuple[int, bytes]] = dataclasses.field(default_factory=list)
    #: inode -> the one that undo made in its stead
    aliases: dict[Inode, bytes] = dataclasses.field(default_factory=dict)
    after: AfterDigest = dataclasses.field(default_factory=AfterDigest)
    #: images of earlier epochs are left out
    first_epoch: int = 0
    records: int = 0
    next_directory: int = 1
    next_number: int = 1
    last_epoch: int = 0
    #: whether the log would say so if an inode that was kept in it had attributes
    has_attributes: bool = False

    def xattrs_of(self, inode: Inode) -> tuple[tuple[bytes, bytes], ...] | None:
        """All extended attributes that the inode had; None: unchanged. For one kept in the log, those not recorded were not there."""
        found = self.xattrs.get(inode)
        return found.pairs if found is not None else () if self._in_log(inode) else None

    def flags_of(self, inode: Inode) -> int | None:
        """Likewise its flags."""
        found = self.flags.get(inode)
        return found.flags if found is not None else 0 if self._in_log(inode) else None

    def attributes_of(self, inode: Inode) -> Attributes | None:
        """Likewise what else FS_IOC_FSGETXATTR knows of it; None also where the log is of an engine that did not ask."""
        found = self.flags.get(inode)
        return found.attributes if found is not None else NONE if self.has_attributes and self._in_log(inode) else None

    def _in_log(self, inode: Inode) -> bool:
        keep = self.keeps.get(inode)
        return keep is not None and keep.how != LINK

    def inode(self, fs: int, handle: bytes) -> bytes:
        """The handle by which the inode goes now."""
        while (fs, handle) in self.aliases:
            handle = self.aliases[fs, handle]
        return handle

    def go_by(self, fs: int, handle: bytes, now: bytes) -> None:
        """What `handle` goes by has images of its own: the earliest ones are those of `handle`, as if the log were read again."""
        for images in t.cast("tuple[dict[Inode, t.Any], ...]", (self.basics, self.xattrs, self.flags, self.contents)):
            if (fs, handle) in images:
                images[fs, now] = images.pop((fs, handle))

    def paths(self) -> list[bytes]:
        """Paths of the places and inodes that an undo would look at, sorted; directories whose times alone changed are not among them."""
        found = {self.directories[number].path + b"/" + name for number, name in self.entries}
        found.update(basic.path for basic in self.basics.values() if basic.mode & 0o170000 != 0o040000)
        found.update(self.values)
        return sorted(found)


class _Epochs:
    """Images of each epoch on its own, so that Undone can take the latest away again."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._kept: dict[int, list[Image]] = {}
        #: images that undos made void, each with the end of the undo (0: not known)
        self.void: list[tuple[Image, int]] = []
        self._batch = 0
        self.epoch = 0

    def add(self, record: Image) -> None:
        if self.epoch >= self._first:
            self._kept.setdefault(self.epoch, []).append(record)

    def undone(self, record: Undone, wanted: Wanted) -> None:
        """What was held back, and what it needs, is no more void than before."""
        held = None
        if record.places or record.inodes:
            held = _Held(record, wanted, [image for epoch, images in self._kept.items() if epoch >= record.epoch for image in images])
        for epoch, images in self._kept.items():
            if epoch >= record.epoch:
                needed = [image for image in images if held is not None and held.needs(image)]
                self.void += [(image, 0) for image in images if held is None or not held.needs(image)]
                self._kept[epoch] = needed

    def undo_ended(self, ended_ns: int) -> None:
        """An undo may have had several parts: all that became void since the last one was its work."""
        self.void[self._batch :] = [(record, ended_ns) for record, _unknown in self.void[self._batch :]]
        self._batch = len(self.void)

    def records(self) -> t.Iterator[Image]:
        """Each once: they are many, and are let go of as they are read."""
        for images in self._kept.values():
            images.reverse()
            while images:
                yield images.pop()


class _Held:
    """What an undo held back, as the log knows it so far."""

    def __init__(self, record: Undone, wanted: Wanted, images: list[Image]) -> None:
        self._wanted = wanted
        self._numbers = _directories_made_anew(wanted)
        self._places = {(self._numbers[number], name) for number, name in record.places}
        self._inodes = {(fs, wanted.inode(fs, handle)) for fs, handle in record.inodes}
        for image in images:
            if isinstance(image, Entry) and image.mode and self.needs(image):
                self._inodes.add((image.fs, wanted.inode(image.fs, image.handle)))

    def needs(self, image: Image) -> bool:
        if isinstance(image, Entry):
            return (self._numbers[image.directory], image.name) in self._places
        if isinstance(image, (Basic, Keep, Content, Xattrs, Flags, Dropped)):
            return (image.fs, self._wanted.inode(image.fs, image.handle)) in self._inodes
        return isinstance(image, (Left, LeftContent, Met, MetPlace, MetContent))


def read(directory: str, *, epoch: int = 0, until: int | None = None, after_power_cut: bool = False, synced: bool = False) -> Wanted:
    """The state at the start of `epoch`, from the log in `directory`. `until`: leave out images of that epoch and later (for a
    step's own changes). JournalDamaged before anything is returned when the log fails its checks (I7). `after_power_cut`, `synced`: as
    Reader's."""
    wanted, epochs = Wanted(has_attributes=formats.has_attributes(directory), first_epoch=epoch), _Epochs(epoch)
    reader = Reader(directory, after_power_cut=after_power_cut, synced=synced)
    for record in reader:
        if isinstance(record, EpochStarted):
            epochs.epoch = record.epoch
            wanted.last_epoch = max(wanted.last_epoch, record.epoch)
        elif isinstance(record, FileSystemSeen):
            wanted.file_systems[record.fs] = record
        elif isinstance(record, DirectorySeen):
            wanted.directories[record.directory] = record
            wanted.next_directory = record.directory + 1
        elif isinstance(record, Alias):
            wanted.aliases[record.fs, record.handle] = record.now
        elif isinstance(record, Undone):
            epochs.undone(record, wanted)
        elif isinstance(record, Sealed):
            wanted.after.sealed[record.step] = record
        elif isinstance(record, UndoRun):
            wanted.after.undo_runs.append(record)
            if record.ended_ns:
                epochs.undo_ended(record.ended_ns)
        else:
            if isinstance(record, (Keep, Content)):
                wanted.next_number = max(wanted.next_number, record.number + 1)
            if until is None or epochs.epoch < until:
                epochs.add(record)
    wanted.records = reader.count
    numbers = _numbered_again(wanted)
    keys: dict[t.Any, t.Any] = {}  # one of each, whatever it is the key of
    for record in epochs.records():
        record = _by_its_present_handle(wanted, record, numbers)
        handle: bytes = getattr(record, "handle", b"")
        known = keys.setdefault(handle, handle)
        if known is not handle:
            record = t.cast(t.Any, record)._replace(handle=known)
        _add(wanted, record, keys)
        _add_after(wanted.after, record, keys)
    for record, ended_ns in epochs.void:
        _add_stored(wanted, record)  # the undo may have died before it had dropped them (I9)
        _add_undone(wanted.after, _by_its_present_handle(wanted, record, numbers), ended_ns)
    for inode, image in wanted.xattrs.items():
        basic = wanted.basics.get(inode)
        if basic is not None:  # an epoch may have seen the mode, and a later one the ACL that a chmod between them had changed
            wanted.xattrs[inode] = image._replace(pairs=pairs_of_mode(image.pairs, basic.mode))
    return wanted


def _numbered_again(wanted: Wanted) -> dict[int, int]:
    """`_directories_made_anew`, or nothing where each directory has one number."""
    found = _directories_made_anew(wanted)
    return found if any(number != first for number, first in found.items()) else {}


def _directories_made_anew(wanted: Wanted) -> dict[int, int]:
    """Number of a directory -> the first number that it went by: it has another one since an undo to a savepoint made it anew, and since
    another agent took the transaction over."""
    first: dict[Inode, int] = {}
    return {number: first.setdefault((seen.fs, wanted.inode(seen.fs, seen.handle)), number) for number, seen in wanted.directories.items()}


def _by_its_present_handle(wanted: Wanted, record: t.Any, numbers: dict[int, int]) -> Image:
    """Images of an inode and of the one that an undo to a savepoint made in its stead are images of one."""
    if wanted.aliases and getattr(record, "handle", None):
        record = record._replace(handle=wanted.inode(record.fs, record.handle))
    if numbers and isinstance(record, (Entry, MetPlace)):
        record = record._replace(directory=numbers[record.directory])
    elif numbers and isinstance(record, Left):
        record = record._replace(places=tuple(place._replace(directory=numbers[place.directory]) for place in record.places))
    return t.cast(Image, record)


def _key(record: t.Any, keys: dict[t.Any, t.Any]) -> t.Any:
    key = record.fs, record.handle
    return keys.setdefault(key, key)


def _place(record: Entry, keys: dict[t.Any, t.Any]) -> t.Any:
    place = record.directory, record.name
    return keys.setdefault(place, place)


def _add(wanted: Wanted, record: Image, keys: dict[t.Any, t.Any]) -> None:
    _add_stored(wanted, record)
    if isinstance(record, Entry):
        wanted.entries.setdefault(_place(record, keys), record)
    elif isinstance(record, Basic):
        wanted.basics.setdefault(_key(record, keys), record)
    elif isinstance(record, Keep):
        wanted.keeps.setdefault(_key(record, keys), record)
    elif isinstance(record, Content):
        wanted.contents.setdefault(_key(record, keys), record)
    elif isinstance(record, Xattrs):
        wanted.xattrs.setdefault(_key(record, keys), record)
    elif isinstance(record, Flags):
        wanted.flags.setdefault(_key(record, keys), record)
    elif isinstance(record, Value):
        wanted.values.setdefault(record.path, record)
    elif isinstance(record, Dropped):
        keep = wanted.keeps.get((record.fs, record.handle))
        if keep is not None and keep.number == record.number:
            del wanted.keeps[record.fs, record.handle]


def _add_stored(wanted: Wanted, record: Image) -> None:
    if isinstance(record, (Keep, Content)) and record.how in (LINK, COPY):
        wanted.stored.append((record.fs, b"%d" % record.number if record.how == LINK else b"c%d" % record.number))


def _add_after(after: AfterDigest, record: Image, keys: dict[t.Any, t.Any]) -> None:
    if isinstance(record, (Entry, Basic, Keep, Content, Xattrs, Flags)):
        if record.handle:
            key = _key(record, keys)
            after.touched[key] = after.touched.get(key, 0) | 1 << record.step
            if isinstance(record, (Keep, Content)) and _was_met(after, record):
                after.met_images[key] = record
        if isinstance(record, Entry):
            place = _place(record, keys)
            after.named[place] = after.named.get(place, 0) | 1 << record.step
    elif isinstance(record, Left):
        bit = 1 << record.step
        for left in record.places:
            after.places[left.directory, left.name] = left
            if left.ino:
                identity = left.ino, left.btime
                after.standing[identity] = after.standing.get(identity, 0) | bit
    elif isinstance(record, LeftContent):
        after.contents[record.path] = record.data
    elif isinstance(record, Met):
        after.met.setdefault(_key(record, keys), []).append(record)
    elif isinstance(record, MetPlace):
        place = record.directory, record.name
        after.met_places.setdefault(place, []).append((record, after.places.get(place)))
        after.met_handles[record.fs, record.handle] = record.step
    elif isinstance(record, MetContent):
        after.met_contents.setdefault(record.path, []).append((record.data, after.contents.get(record.path)))


def _was_met(after: AfterDigest, record: Keep | Content) -> bool:
    inode = record.fs, record.handle
    return after.met_handles.get(inode) == record.step or (inode in after.met and after.met[inode][-1].step == record.step)


def _add_undone(after: AfterDigest, record: Image, ended_ns: int) -> None:
    if isinstance(record, (Entry, Basic, Keep, Content, Xattrs, Flags)) and record.handle:
        after.undone[record.fs, record.handle] = ended_ns
    if isinstance(record, Entry):
        after.undone[record.directory, record.name] = ended_ns
