-- Schema 1 of a Refold log in SQLite. Column names of `stored_events` are those of the eventsourcing library.

-- AUTOINCREMENT: without it SQLite gives the number of a deleted last row to the next one, and a reader
-- that remembers "I have seen up to 7" would never see the new 7.
CREATE TABLE stored_events (
    rowid INTEGER PRIMARY KEY AUTOINCREMENT,
    originator_id TEXT NOT NULL,
    originator_version INTEGER NOT NULL,
    topic TEXT NOT NULL,
    state BLOB NOT NULL,
    hash BLOB NOT NULL,
    UNIQUE (originator_id, originator_version)
);

-- The dispatch table: a fold of the events, written in their transaction, rebuildable. `mail` is the
-- version of the run's inbox stream.
CREATE TABLE work (
    run_id TEXT NOT NULL PRIMARY KEY,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    due_at REAL,
    seen INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    status TEXT NOT NULL,
    mail INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- One small index for each question the engine asks again and again; what is done costs nothing.
CREATE INDEX work_due ON work (due_at) WHERE state IN ('pending', 'waiting');
CREATE INDEX work_mail ON work (run_id) WHERE mail > seen AND state <> 'done';
CREATE INDEX work_running ON work (run_id) WHERE state = 'running';

CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
