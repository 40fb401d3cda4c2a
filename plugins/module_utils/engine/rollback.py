# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Roll a transaction back, whole or to a savepoint: processes, probes, files, probes, verification.

    summary = roll_back(journal, tx, Manner(reason="..."))    the whole of it; the processes are dead already
    roll_back_to(open_transaction, point)                     an open transaction, which goes on afterwards

Compensations are paid in their places of the reverse order: the undo goes back to the end of the step, has the compensation run, and goes
on. One that a controller has to run ends the call; the summary's extra key says so, the state is as before the end, and the
same call goes on afterwards.

Every part looks first and then acts, so a crash at any point is mended by running it again (I2). The log is verified before anything is
touched (I7).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import traceback
import typing as t

from . import basis, compensations, copies, doommark, formats, kernel, net, ownership, packagelocks, reserve, shutdown, states
from .afterdigest import clock_offset_ns, now_ns
from .boot import began_ns, boot_id
from .drift.ends import StepTimes
from .drift.groups import DATABASES, PACKAGES, of_changed_packages
from .drift.settle import About, Settled
from .drift.verdict import STOP, passengers
from .drift.verdict import load as load_verdict
from .errors import AcidError, JournalDamaged, JournalUnwritable, ProbeFailed, StoreFull, WrongState
from .filesystems import TRACED
from .journal import Journal
from .model import ASKED, DIFFERS, MOOT, TOLD, Savepoint, Summary, Transaction
from .paths import STATE, directory_of
from .probes.base import EARLY_NS, Circumstances, Image, Outcome, Probe
from .probes.registry import Probes
from .probes.sightings import UNDO, Sightings
from .probes.unitpaths import is_read_by_systemd
from .records import UndoRun
from .report import most, summary
from .store import Store
from .transaction import OpenTransaction
from .undo import look_again, undo
from .undolog import Writer
from .wanted import AfterDigest, Wanted, read

_UNTOUCHED = (states.ACTIVE, states.DOOMED, states.COMMITTED)


class Manner(t.NamedTuple):
    """How to roll back. `payer`: who runs compensations (the host); `on_drift`: instead of the transaction's own option; `killed`: steps of
    which processes lived until just now."""

    reason: str
    at_boot: bool = False
    payer: compensations.Payer | None = None
    on_drift: str = ""
    killed: frozenset[int] = frozenset()


def refuse(journal: Journal, tx: str) -> None:
    """Raises what `roll_back` would before it touches anything, so that nothing is killed for an undo that does not come."""
    known = journal.get(tx)
    if known.state != states.ABORTED:
        formats.check(directory_of(tx), tx=tx, engine=known.engine)
    journal.refuse_undo(tx)
    if known.state == states.COMMITTED:
        _refuse_overtaken(journal, tx)


def roll_back(journal: Journal, tx: str, manner: Manner) -> Summary:
    """ABORTING, then ABORTED or UNDO_FAILED. Of an ABORTED transaction: its summary again, nothing is done. Waits for whoever owns the log
    (ownership.py). `payer`: who runs compensations (the host)."""
    if journal.get(tx).state == states.ABORTED:
        return _known(journal, tx)
    with ownership.owned(directory_of(tx)):
        if journal.get(tx).state not in (states.COMMITTED, states.ABORTED):  # what its owner before has made of it
            reserve.release_host(STATE)  # before the first write; it is this transaction's
        try:
            return _roll_back(journal, tx, manner)
        finally:
            keep_reserve(journal)


def _known(journal: Journal, tx: str) -> Summary:
    known, value = journal.summary(tx), journal.get(tx)
    return known if known is not None else Summary(tx, value.name, value.state)


def keep_reserve(journal: Journal) -> None:
    """The host's reserve is there while an undo may come, and else not (I9); after each end, and after an agent's or a host's death. Where
    there is no room for it any more the undo has to do without."""
    failed = any(value.state == states.UNDO_FAILED for value in journal.transactions())
    if failed or journal.open_transaction() is not None:
        with contextlib.suppress(StoreFull):
            reserve.take_host(STATE)
    else:
        reserve.release_host(STATE)


def _roll_back(journal: Journal, tx: str, manner: Manner) -> Summary:
    start = time.monotonic()
    value = journal.get(tx)
    if value.state == states.ABORTED:
        return _known(journal, tx)
    refuse(journal, tx)
    after_commit = value.state == states.COMMITTED
    clean = after_commit or shutdown.was_clean(directory_of(tx), value.boot_id)  # the commit had synced it all, too
    if clean:
        shutdown.mark_undo(directory_of(tx))
    lacks_nothing = clean or value.boot_id == boot_id()
    if value.state != states.UNDO_FAILED:  # tried again: it stays that, until it is exact
        journal.set_state(tx, states.ABORTING, reason=manner.reason)
    doommark.forget(tx)
    for kind in (DIFFERS, MOOT, TOLD):
        journal.drop_notes(tx, kind)
    store = Store(tx, durable=value.durable)
    try:
        wanted, log, cut = basis.read_verified(journal, tx, store, untouched=value.state in _UNTOUCHED)
    except JournalDamaged as error:
        store.close()
        journal.note(tx, DIFFERS, str(error))
        journal.set_state(tx, states.UNDO_FAILED, reason=error.msg)
        raise
    except Exception as error:
        store.close()
        journal.note(tx, DIFFERS, "undo stopped: %s" % (error if str(error) else repr(error)))
        journal.set_state(tx, states.UNDO_FAILED, reason=str(error))
        raise
    after_commit = after_commit or value.ended_ns is not None or _was_to_commit(journal, value)
    counted = _counted(journal, tx)
    payer = manner.payer or compensations.Host(at_boot=manner.at_boot)

    as_read = [wanted]  # for the first undo; two of 100,000 places at a time would take too much memory

    def back_to(epoch: int) -> list[str]:
        goal = as_read.pop() if as_read and not epoch else read(directory_of(tx), epoch=epoch, after_power_cut=cut)
        as_read.clear()
        return _undo(journal, tx, goal, store, log, settled, epoch=epoch, after_commit=after_commit, at_boot=manner.at_boot)

    try:
        store.adopt_all(wanted.file_systems.values())
        store.room.release_reserves()
        counted = most(counted, net.count(wanted, store))
        with contextlib.suppress(JournalUnwritable):  # an undo that goes on, after a death, finds less
            summary(journal, tx, states.ABORTING, 0.0, counted)
        with packagelocks.held(wanted):  # what a package manager that runs now will change is judged when it has done it
            settled = Settled.reach(_about(journal, value, manner, epoch=0), store, log, wanted)
        if not settled.looks_again(wanted):
            wanted.after = AfterDigest()  # judged by now
        del wanted
        if not after_commit:
            _last_look(value)
        units, stop = _in_order(journal, tx, back_to, epoch=0, payer=payer)
        inexact = failed = False
        if stop is None:
            _note_drift(journal, tx, settled)
            inexact = bool(journal.notes(tx, DIFFERS))
            _note_unpaid(journal, tx, epoch=0)
            failed = inexact or bool(journal.notes(tx, DIFFERS))
        if lacks_nothing and (failed or stop is not None):
            _mark_clean(value, store, log)
        if stop is not None:
            return summary(journal, tx, journal.get(tx).state, time.monotonic() - start, counted, units=units, extra=stop)
    except Exception as error:  # of our own making too: an undo that stays ABORTING would be begun again for ever
        if not isinstance(error, (OSError, AcidError)):
            traceback.print_exc()
        journal.note(tx, DIFFERS, "undo stopped: %s" % (error if str(error) else repr(error)))
        journal.set_state(tx, states.UNDO_FAILED, reason=str(error))
        if lacks_nothing:
            _mark_clean(value, store, log)
        return summary(journal, tx, states.UNDO_FAILED, time.monotonic() - start, counted)
    finally:
        log.close()
        store.close()
    for step in journal.steps(tx):
        if step.state != states.UNDONE:  # by a rollback to a savepoint, earlier
            journal.set_step_state(tx, step.n, states.UNDO_FAILED if inexact else states.UNDONE)
    end = states.UNDO_FAILED if failed else states.ABORTED
    journal.set_state(tx, end, reason="see acidctl show %s" % tx if failed else "")
    return summary(journal, tx, end, time.monotonic() - start, counted, units=units, extra=_told(settled))


def _last_look(value: Transaction) -> None:
    """Before the undo changes anything: what differs from the last step's end is somebody else's doing."""
    watched = [probe for probe in Probes(value.options.get("probes")).before_files() if probe.is_watched and not probe.check()]
    sightings = Sightings(directory_of(value.id), watched)
    if not sightings.closed:
        sightings.began(UNDO, value.epoch)


def _mark_clean(value: Transaction, store: Store, log: Writer) -> None:
    """For an undo that goes on or is asked for again, perhaps in another boot: all that this one did is on the disk. Where it does not
    get there (a full disk, one that fails), that boot says that something may be missing."""
    with contextlib.suppress(OSError, JournalUnwritable):
        log.sync()
        for fs in store.by_number.values():
            if fs.policy == TRACED and fs.mount_fd >= 0:
                kernel.syncfs(fs.mount_fd)
        shutdown.mark(directory_of(value.id), value.boot_id)


def _about(journal: Journal, value: Transaction, manner: Manner, *, epoch: int) -> About:
    directory, steps = directory_of(value.id), journal.steps(value.id)
    booted = 0 if value.boot_id == boot_id() else began_ns()
    later = [other for other in journal.transactions() if other.token > value.token]
    undos = [found for other in later for found in [load_verdict(directory_of(other.id), 0)] if found is not None]
    return About(
        directory,
        epoch,
        manner.on_drift or str(value.options.get("on_drift", STOP)),
        tuple(StepTimes(step.n, step.started_ns, step.sealed_ns) for step in steps),
        manner.killed,
        booted,
        tuple((found.judged_ns, found.ended_ns or now_ns()) for found in undos),
    )


def _note_drift(journal: Journal, tx: str, settled: Settled) -> None:
    for sentence in settled.differs():
        journal.note(tx, DIFFERS, sentence)
    settled.finish()


def _told(settled: Settled) -> dict[str, t.Any]:
    told = settled.report()
    return {"drift": told} if told else {}


def _in_order(
    journal: Journal, tx: str, back_to: t.Callable[[int], list[str]], *, epoch: int, payer: compensations.Payer
) -> tuple[list[str], dict[str, t.Any] | None]:
    """Units acted on, and why the undo stops before its end (None: it is done)."""
    units: list[str] = []
    for compensation in compensations.due(journal, tx, epoch):
        units += back_to(compensations.boundary(journal, tx, compensation))
        stop = payer.pay(journal, tx, compensation)
        if stop is not None:
            return units, stop
    return units + back_to(epoch), None


def _note_unpaid(journal: Journal, tx: str, *, epoch: int) -> None:
    for sentence in compensations.sentences(journal, tx, epoch=epoch):
        journal.note(tx, DIFFERS, sentence)


def _was_to_commit(journal: Journal, value: Transaction) -> bool:
    """Probes have looked at what it left; an undo of a committed transaction that is asked for in several calls is still that."""
    probes = Probes(value.options.get("probes")).before_files()
    return any(at > value.epoch for probe in probes for at, _image in journal.probes(value.id, probe.name))


def _counted(journal: Journal, tx: str) -> dict[int, int]:
    """Paths by step, of an undo that began in an earlier call."""
    known = journal.summary(tx)
    return {step.n: step.paths for step in known.steps} if known is not None and known.state == states.ABORTING else {}


def roll_back_to(transaction: OpenTransaction, point: Savepoint, manner: Manner) -> Summary:
    """Undo all since the savepoint. The transaction stays open; what its later steps left running is killed. Until that has come to its end
    it is REWINDING: asked for again, or by the next agent, it goes on."""
    start = time.monotonic()
    journal, tx = transaction.journal, transaction.id
    journal.verify_rows(tx)
    transaction.rewind(point)
    transaction.watch.began(UNDO, point.epoch)
    wanted = read(directory_of(tx), epoch=point.epoch)
    copies.verify(transaction.store, wanted)
    counted = net.count(wanted, transaction.store)
    about = _about(journal, journal.get(tx), manner, epoch=point.epoch)
    begun = now_ns()
    with transaction.lock:
        settled = Settled.reach(about, transaction.store, transaction.log, wanted)
        transaction.log.append(UndoRun(point.epoch, begun, 0, clock_offset_ns()))
        if transaction.store.durable:  # what a power cut leaves of this undo must not be taken for somebody else's doing
            transaction.log.sync()

    def back_to(epoch: int) -> list[str]:
        with transaction.lock:
            goal = read(directory_of(tx), epoch=epoch)
            units = _undo(journal, tx, goal, transaction.store, transaction.log, settled, epoch=epoch, after_commit=False, at_boot=False)
            transaction.capture.epoch(journal.next_epoch(tx), 0)  # what earlier steps left running is imaged anew
            return units

    units, stop = _in_order(journal, tx, back_to, epoch=point.epoch, payer=manner.payer or compensations.Host())
    if stop is not None:
        return summary(journal, tx, journal.get(tx).state, time.monotonic() - start, counted, units=units, extra=stop)
    with transaction.lock:
        _note_drift(journal, tx, settled)
        transaction.log.append(UndoRun(point.epoch, begun, now_ns(), clock_offset_ns()))
    _note_unpaid(journal, tx, epoch=point.epoch)
    _ended(tx)
    inexact = bool(journal.notes(tx, DIFFERS))
    transaction.watch.ended(UNDO)
    transaction.rewound(point, doomed="the undo to savepoint %s was not exact" % point.name if inexact else "")
    return summary(journal, tx, journal.get(tx).state, time.monotonic() - start, counted, units=units, extra=_told(settled))


def _undo(
    journal: Journal, tx: str, wanted: Wanted, store: Store, log: Writer, settled: Settled, *, epoch: int, after_commit: bool, at_boot: bool
) -> list[str]:
    """Units acted on. What is not as before is in the journal's notes."""
    value = journal.get(tx)
    settled.restrict(wanted)
    probes = Probes(value.options.get("probes"))
    later = [step for step in journal.steps(tx) if step.epoch >= epoch]
    numbers = {step.n for step in later}
    booted = began_ns() if shutdown.was_rebooted(directory_of(tx)) and value.boot_id == boot_id() else 0  # by plan
    spans = {n: (start, min(end, booted) if start < booted else end) for n, (start, end) in settled.spans().items() if n in numbers}
    # Of a torn step nobody has written down whom it asked.
    asked = {note.step for note in journal.notes(tx, ASKED)} | {step.n for step in later if step.sealed_ns is None}
    nothing = ((value.created_ns, value.created_ns),)
    clock_was_set = settled.clock_was_set or any(start > end for start, end in spans.values())  # then times tell nothing
    since, before, about, sightings = _began(tx), {}, {}, Sightings(directory_of(tx), ())
    # Then what it left was left by that boot as well, and tells nothing of its doing.
    booted_within = shutdown.was_rebooted(directory_of(tx))
    rebooted = booted_within or value.boot_id != boot_id()
    rereads = bool(rebooted or at_boot or asked or any(map(is_read_by_systemd, wanted.paths())))
    first = min((step.started_ns for step in later), default=1 << 63)
    for probe in probes.before_files():
        captured = journal.probes(tx, probe.name)
        images = [(at, image) for at, image in captured if at >= epoch]
        if images:
            image = images[0][1]
            before[probe.name] = sightings.goal(probe, image, epoch) if probe.is_watched else image
            left = images[-1][1] if after_commit and not booted_within and images[-1][0] > value.epoch else None
            about[probe.name] = Circumstances(
                () if clock_was_set else tuple(spans.values()) or nothing,
                () if clock_was_set else tuple(span for n, span in spans.items() if n in asked) or nothing,
                left=left,
                since=since,
                rebooted=rebooted,
                booted=booted,
                at_boot=at_boot,
                rereads=rereads,
                attic="%s/store/%s" % (STATE, tx),
                memory=directory_of(tx) + "/undo.held",
            )
    about = _with_held(about, settled, 0 if clock_was_set else first)
    outcome = Outcome()
    for probe in probes.before_files():
        if probe.name in before:
            outcome += _half(probe.before_files, before[probe.name], about[probe.name])
    if [fs for fs in store.by_number.values() if fs.reopen()]:  # the probes may have mounted it read-write again
        store.room.release_reserves()
    with settled.accounts(wanted), packagelocks.held(wanted) as taken:
        if taken:
            settled.hold_back(wanted, PACKAGES, taken[0])
        files = undo(store, log, wanted, epoch=epoch, held=settled.held(), spared=passengers(directory_of(tx)), since=first)
    about = _with_held(about, settled, 0 if clock_was_set else first)  # more may have been held back since
    for probe in probes.after_files():
        if probe.name in before:
            outcome += _half(probe.after_files, before[probe.name], about[probe.name])
    if files.replaced:
        look_again(store, log, wanted, files, epoch=epoch, held=settled.held())
    # Verified, not assumed (I5).
    for probe in probes.before_files():
        if probe.name in before:
            outcome += _verify(probe, before[probe.name], about[probe.name])
    journal.note_all(tx, DIFFERS, files.differs + list(outcome.failures))
    for sentence in outcome.notes:
        journal.note(tx, TOLD, sentence)
    for path in files.moot[:100]:
        journal.note(tx, MOOT, path)
    if epoch == 0:
        _ended(tx, exact=not files.differs and not outcome.failures)
    return list(outcome.units)


def _with_held(about: dict[str, Circumstances], settled: Settled, first: int) -> dict[str, Circumstances]:
    """What is held back is so by every mechanism (I5). `first`: when the first step began, in nanoseconds; 0: times tell nothing."""
    held: frozenset[bytes] = frozenset()
    trees: tuple[bytes, ...] = ()
    if PACKAGES in settled.held_groups():
        held, trees = of_changed_packages(first - EARLY_NS), DATABASES
    spared = settled.paths()
    return {name: dataclasses.replace(one, spared=spared, held=held, held_trees=trees) for name, one in about.items()}


def _began(tx: str) -> int:
    """When this undo began, in nanoseconds, also if it died since and is going on now, or goes in several calls."""
    mark = directory_of(tx) + "/undo"
    with contextlib.suppress(FileExistsError):
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return os.stat(mark).st_mtime_ns


def _ended(tx: str, *, exact: bool = True) -> None:
    """One that is not exact may be asked for again: what it has taken down and not brought back is not forgotten."""
    for name in ("/undo.held", "/undo") if exact else ("/undo",):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(directory_of(tx) + name)


def _half(half: t.Callable[[Image, Circumstances], Outcome], before: Image, about: Circumstances) -> Outcome:
    """One probe that cannot see its state must not keep the files and the other probes from being put back."""
    try:
        return half(before, about)
    except (ProbeFailed, OSError) as error:
        return Outcome(failures=(str(error),))
    except Exception as error:
        traceback.print_exc()
        return Outcome(failures=("a probe has failed: %r" % error,))


def _verify(probe: Probe, before: Image, about: Circumstances) -> Outcome:
    try:
        return Outcome(failures=tuple(probe.compare(before, probe.capture(), about)))
    except (ProbeFailed, OSError) as error:
        return Outcome(failures=(str(error),))
    except Exception as error:
        traceback.print_exc()
        return Outcome(failures=("a probe has failed: %r" % error,))


def _refuse_overtaken(journal: Journal, tx: str) -> None:
    """A committed transaction is rolled back newest first, unless nothing later touched the same paths."""
    value = journal.get(tx)
    own: set[bytes] | None = None
    for later in journal.transactions():
        if later.token > value.token and later.state == states.COMMITTED and later.images:
            own = set(read(directory_of(tx)).paths()) if own is None else own
            shared = own & set(read(directory_of(later.id)).paths())
            if shared:
                raise WrongState(
                    "Transaction %s came later and changed %d of the same paths." % (later.id, len(shared)),
                    hint="Roll that back first: acidctl rollback %s." % later.id,
                )
