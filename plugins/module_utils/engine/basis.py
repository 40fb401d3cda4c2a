# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an undo goes by, read and verified before the first path is touched (I7): the journal's rows of the transaction, the log, the images
in the store, and what probes' images have beside the journal.

    wanted, log, cut = basis.read_verified(journal, tx, store, untouched=...)
"""

from __future__ import annotations

from . import copies, shutdown
from .boot import boot_id
from .errors import JournalDamaged
from .journal import Journal
from .model import DIFFERS, Transaction
from .paths import directory_of
from .probes.registry import Probes
from .store import Store
from .undolog import Writer
from .wanted import Wanted, read

_CUT = (
    "the host went down without an orderly shutdown, and with 'durability: process' changes of the last seconds before may have no image: "
    "what has one is as before, the rest is unknown"
)


def read_verified(journal: Journal, tx: str, store: Store, *, untouched: bool) -> tuple[Wanted, Writer, bool]:
    """The log and the images, and whether the log's end may be missing; `untouched`: no undo has used any of them. After a
    power cut what follows its last whole record was never relied on; with `durability: process` HEAD may even lead it, copies may be gone,
    and changes may have reached the disk of which the log says nothing: what is whole is undone, and that it may not be all is said."""
    journal.verify_rows(tx)
    directory, value = directory_of(tx), journal.get(tx)
    beside = damage_beside(journal, value)
    same_boot = value.boot_id == boot_id()
    lacks_nothing = same_boot or value.durable or shutdown.was_clean(directory, value.boot_id)
    if beside and lacks_nothing and untouched:
        hint = "Nothing was touched. See acidctl verify %s. Asked for again, the rollback undoes the rest, and says what is gone."
        raise JournalDamaged("%s." % beside[0], hint=hint % tx)
    for sentence in beside if lacks_nothing else ():
        journal.note(tx, DIFFERS, sentence)
    if not same_boot and value.durable:
        wanted = read(directory, after_power_cut=True, synced=True)
        copies.verify(store, wanted)
        return wanted, Writer.resume(directory, after_power_cut=True, synced=True), False
    if lacks_nothing:
        wanted = read(directory)
        copies.verify(store, wanted, untouched=untouched)
        return wanted, Writer.resume(directory), False
    journal.note(tx, DIFFERS, _CUT)
    cut = False
    try:
        wanted = read(directory)
    except JournalDamaged:
        cut, wanted = True, read(directory, after_power_cut=True)
    for sentence in beside + copies.damaged(store, wanted):
        journal.note(tx, DIFFERS, sentence)
    return wanted, Writer.resume(directory, after_power_cut=cut), cut


def damage_beside(journal: Journal, value: Transaction) -> list[str]:
    """Of the probes' images, what lies beside the journal."""
    found = []
    for probe in Probes(value.options.get("probes")).before_files():
        images = {str(image): image for _epoch, image in journal.probes(value.id, probe.name)}
        found += [sentence for image in images.values() for sentence in [probe.damage(image)] if sentence]
    return found
