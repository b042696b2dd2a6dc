-- Schema 1 of a Refold log in PostgreSQL; `refold` stands for the schema that the URL names. Column names of
-- `stored_events` are those of the eventsourcing library.

-- One row for each transaction that stored events. Numbers are drawn after everything the transaction waits
-- for is visible, so what follows an event in its stream has the same or a higher number. `first_position`
-- is given afterwards, by one reader at a time: positions are dense, and nobody who appends takes a lock for them.
CREATE TABLE refold.commits (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    size INTEGER NOT NULL,
    first_position BIGINT UNIQUE
);
CREATE INDEX commits_without_position ON refold.commits (id) WHERE first_position IS NULL;

-- Text ids compared byte by byte: read up to twice as fast as UUIDs, and ordered the same in every locale.
CREATE TABLE refold.stored_events (
    originator_id TEXT COLLATE "C" NOT NULL,
    originator_version BIGINT NOT NULL,
    topic TEXT NOT NULL,
    state BYTEA NOT NULL,
    hash BYTEA NOT NULL,
    commit_id BIGINT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (originator_id, originator_version)
);
CREATE INDEX stored_events_commit ON refold.stored_events (commit_id);

-- The dispatch table: a fold of the events, written in their transaction, rebuildable. `mail` is the
-- version of the run's inbox stream. `owner` is no fold of anything: the worker that has the run in hand.
CREATE TABLE refold.work (
    run_id TEXT COLLATE "C" PRIMARY KEY,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    due_at DOUBLE PRECISION,
    seen BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    status TEXT NOT NULL,
    queue TEXT COLLATE "C" NOT NULL,
    priority BIGINT NOT NULL,
    queue_key TEXT COLLATE "C" NOT NULL,
    run_on TEXT COLLATE "C" NOT NULL,
    begun_at DOUBLE PRECISION,
    mail BIGINT NOT NULL DEFAULT 0,
    owner TEXT
);

CREATE INDEX work_due ON refold.work (due_at) WHERE state IN ('pending', 'waiting');
CREATE INDEX work_mail ON refold.work (run_id) WHERE mail > seen AND (state <> 'done' OR status = 'continued');
CREATE INDEX work_running ON refold.work (run_id) WHERE state = 'running';
CREATE INDEX work_owner ON refold.work (owner) WHERE state <> 'done';

-- Who executes this log, and until when others must believe that it lives. Lost rows cost time, nothing else.
CREATE TABLE refold.workers (
    owner TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    place TEXT NOT NULL,
    since TEXT NOT NULL,
    until TIMESTAMPTZ NOT NULL
);

-- Contents of values too large for their events, by the SHA-256 of the content. Random bytes and compressed
-- files are most of them: not worth a try to compress.
CREATE TABLE refold.blobs (
    digest TEXT COLLATE "C" PRIMARY KEY,
    data BYTEA NOT NULL
);
ALTER TABLE refold.blobs ALTER COLUMN data SET STORAGE EXTERNAL;

-- Who executes this log; the lock that goes with it belongs to a session of that process.
CREATE TABLE refold.executor (
    only_one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_one),
    owner TEXT NOT NULL,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    since TEXT NOT NULL
)
