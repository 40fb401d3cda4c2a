# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A rehearsal as one HTML page that needs nothing else: no script, no other file, no network (and a policy that forbids them).

Whatever comes from a host is text here: it is escaped, and its control characters are spelled out already (rehearsal.printable).
"""

from __future__ import annotations

import os
import time
from html import escape
from pathlib import Path

from . import reports
from .rehearsal import FileChange, Rehearsal, StepChanges, is_added, is_removed
from .rehearsal_text import grouped, summary

STYLE = Path(__file__).with_name("rehearsal_page.css")
MOST_OPEN, MOST_FILES = 40, 6  # lines of a diff, and files of a step, that are shown unasked

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
SIGNS = {"created": "new", "removed": "removed", "moved": "moved", "changed": "changed"}
VERDICTS = {
    reports.REHEARSED: ("good", "taken back and verified"),
    reports.UNDO_FAILED: ("bad", "UNDO FAILED: not as before"),
    reports.LEFT_TO_HOST: ("bad", "left to the host to take back"),
}


def write(path: str, rehearsals: list[Rehearsal], *, playbook: str) -> None:
    """At once: nobody sees half a page. Raises OSError."""
    fresh = f"{path}.{os.getpid()}.new"
    try:
        Path(fresh).write_text(page(rehearsals, playbook=playbook, now=time.time()), encoding="utf-8", errors="backslashreplace")
        os.replace(fresh, path)
    finally:
        Path(fresh).unlink(missing_ok=True)


def page(rehearsals: list[Rehearsal], *, playbook: str, now: float) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    name = escape(", ".join(os.path.basename(word) for word in playbook.split()) or "a playbook")
    sections = "\n".join(_section(hosts, one) for hosts, one in grouped(rehearsals))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rehearsal of {name}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<header><h1>Rehearsal of {name}</h1><label class="flip"><input type="checkbox" id="flip"> light or dark</label></header>
<p class="lead">The play ran for real on {_hosts(rehearsals)}; this is what each step changed. Then all of it was taken back. {when}</p>
{sections}
<footer>acid.host. Content is left out where a step has no_log, or where not everybody on the host may read it.</footer>
</main>
</body>
</html>
"""


def _hosts(rehearsals: list[Rehearsal]) -> str:
    names = list(dict.fromkeys(one.report.host for one in rehearsals))
    return escape(", ".join(names)) if len(names) <= 4 else f"{len(names)} hosts"


def _section(hosts: list[str], one: Rehearsal) -> str:
    kind, verdict = VERDICTS.get(one.report.outcome, ("note", one.report.outcome))
    alerts = [f"The play failed here: {one.report.reason}"] if one.report.reason else []
    alerts += [f"differs: {text}" for text in one.report.differs]
    touching = [step for step in one.steps if step.changes or step.irreversible or step.undone]
    quiet = [step for step in one.steps if step not in touching]
    return f"""<section>
<div class="head"><h2>{escape(", ".join(hosts))}</h2><span class="chip {kind}">{verdict}</span>
<span class="soft small">{escape(one.report.play)} · {escape(summary(one))}</span>
{"".join(f'<span class="alert small">{escape(text)}</span>' for text in alerts)}</div>
{"".join(map(_step, touching))}
{_quiet(quiet)}
{_host(one)}
</section>"""


def _step(step: StepChanges) -> str:
    counts = {kind: sum(change.kind == kind for change in step.changes) for kind in SIGNS}
    chips = "".join(f'<span class="chip {kind}">{count} {SIGNS[kind]}</span>' for kind, count in counts.items() if count)
    if step.irreversible:
        chips += '<span class="chip bad">cannot be undone</span>'
    if step.no_log:
        chips += '<span class="chip note">no_log</span>'
    extra = [f"and {step.more} more paths"] if step.more else []
    extra += [f"taken back by the play itself: {path}" for path in step.undone]
    alerts = "".join(f'<li class="alert">cannot be undone: {escape(text)}</li>' for text in step.irreversible)
    items = alerts + "".join(f"<li>{escape(text)}</li>" for text in extra)
    is_open = " open" if len(step.changes) <= MOST_FILES else ""
    return f"""<details class="step"{is_open}><summary><span class="number">{step.n}</span>
<span class="task">{escape(step.task)}</span>{chips}
<span class="where soft small">{escape(step.module)}<br>{escape(step.position)}</span></summary>
<div class="files">{"".join(map(_file, step.changes))}{f"<ul class='small'>{items}</ul>" if items else ""}</div></details>
"""


def _file(change: FileChange) -> str:
    added, removed = sum(map(is_added, change.diff)), sum(map(is_removed, change.diff))
    counts = f'<span class="counts"><b>+{added}</b> <i>&minus;{removed}</i></span>' if change.diff else ""
    moved = f' <span class="soft small">from {escape(change.moved_from)}</span>' if change.moved_from else ""
    title = f"""<span class="chip {change.kind}">{SIGNS[change.kind]}</span>
<span class="path">{escape(change.path)}{moved}</span><span class="soft small">{escape(_facts(change))}</span>{counts}"""
    body = _metadata(change) + _diff(change)
    if change.hidden:
        body += f'<div class="hidden">Content not shown: {escape(change.hidden)}.</div>'
    if not body:
        return f'<div class="file"><div class="title">{title}</div></div>\n'
    return f"""<details class="file"{" open" if len(change.diff) <= MOST_OPEN else ""}><summary>{title}</summary>{body}</details>
"""


def _facts(change: FileChange) -> str:
    """Of what was born or went: all in one line."""
    if change.kind not in ("created", "removed"):
        return ""
    return ", ".join(f"{after or before} bytes" if name == "size" else after or before for name, before, after in change.metadata)


def _metadata(change: FileChange) -> str:
    if change.kind in ("created", "removed"):
        return ""
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(before or 'none')} &rarr; {escape(after or 'none')}</td></tr>"
        for name, before, after in change.metadata
    )
    return f"<table>{rows}</table>" if rows else ""


def _diff(change: FileChange) -> str:
    if not change.diff:
        return ""
    return "<pre>" + "".join(f'<span class="{_class(line)}">{escape(line) or " "}</span>' for line in change.diff) + "</pre>"


def _class(line: str) -> str:
    return "a" if is_added(line) else "d" if is_removed(line) else "h" if line.startswith("@@") else "c"


def _quiet(steps: list[StepChanges]) -> str:
    if not steps:
        return ""
    names = ", ".join(f"{step.n} {step.task}" for step in steps)
    return f'<div class="quiet">No files changed in: {escape(names)}</div>'


def _host(one: Rehearsal) -> str:
    if one.problem:
        return f'<div class="host alert">{escape(one.problem)}</div>'
    if not one.host_changes:
        return ""
    return f'<div class="host">Besides files:<ul>{"".join(f"<li>{escape(text)}</li>" for text in one.host_changes)}</ul></div>'
