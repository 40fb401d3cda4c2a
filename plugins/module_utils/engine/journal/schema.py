# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The tables, and how they came to be: each schema with what it added to the one before."""

from __future__ import annotations

SCHEMA = 3

TABLES = """
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('token', 0);
INSERT INTO counter VALUES ('serial', 0);
CREATE TABLE tx (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, state TEXT NOT NULL, token INTEGER NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL, ended_ns INTEGER, deadline REAL, options TEXT NOT NULL, boot_id TEXT NOT NULL,
    engine TEXT NOT NULL, reason TEXT NOT NULL, epoch INTEGER NOT NULL, images INTEGER NOT NULL, summary TEXT) WITHOUT ROWID;
CREATE TABLE step (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, n INTEGER NOT NULL, id TEXT NOT NULL, epoch INTEGER NOT NULL, task TEXT NOT NULL,
    module TEXT NOT NULL, position TEXT NOT NULL, no_log INTEGER NOT NULL, state TEXT NOT NULL, started_ns INTEGER NOT NULL,
    sealed_ns INTEGER, pid INTEGER, PRIMARY KEY (tx, n), UNIQUE (tx, id)) WITHOUT ROWID;
CREATE TABLE savepoint (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, name TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (tx, name)) WITHOUT ROWID;
CREATE TABLE note (
    n INTEGER PRIMARY KEY, tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, kind TEXT NOT NULL, text TEXT NOT NULL, step INTEGER,
    UNIQUE (tx, kind, text, step));
CREATE TABLE probe (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, epoch INTEGER NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL,
    PRIMARY KEY (tx, name, epoch)) WITHOUT ROWID;
CREATE TABLE fs (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, mount_point BLOB NOT NULL, fstype TEXT NOT NULL, store BLOB NOT NULL,
    PRIMARY KEY (tx, mount_point)) WITHOUT ROWID;
"""

# What each schema after the first added. A new journal goes through all of them, so that there is one way only.
ADDED = {
    2: """
CREATE TABLE savepoint_2 (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, epoch INTEGER NOT NULL, name TEXT NOT NULL,
    PRIMARY KEY (tx, epoch)) WITHOUT ROWID;
INSERT INTO savepoint_2 SELECT tx, epoch, name FROM savepoint;
DROP TABLE savepoint;
ALTER TABLE savepoint_2 RENAME TO savepoint;
CREATE TABLE compensation (
    tx TEXT NOT NULL REFERENCES tx(id) ON DELETE CASCADE, n INTEGER NOT NULL, id TEXT NOT NULL, epoch INTEGER NOT NULL, end_epoch INTEGER,
    name TEXT NOT NULL, step TEXT NOT NULL, body TEXT NOT NULL, host TEXT, result TEXT, seconds INTEGER NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, claim TEXT NOT NULL, claimed_by TEXT NOT NULL, claim_until_ns INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (tx, n), UNIQUE (tx, id)) WITHOUT ROWID;
""",
    3: """
ALTER TABLE probe ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE tx ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE step ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE savepoint ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE compensation ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE note ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE fs ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE tx ADD COLUMN rewinding_to INTEGER;
""",
}
