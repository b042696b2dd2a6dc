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

CREATE INDEX work_due ON refold.work (run_on, due_at) WHERE state = 'waiting' OR (state = 'pending' AND queue = '');
CREATE INDEX work_mail ON refold.work (run_id) WHERE mail > seen AND (state <> 'done' OR status = 'continued');
CREATE INDEX work_running ON refold.work (run_id) WHERE state = 'running';
CREATE INDEX work_owner ON refold.work (owner) WHERE state <> 'done';

-- Runs that wait in a queue, by priority and key; those that have a place; places given to workers that have
-- not begun the run yet; and when the last ones began.
CREATE INDEX work_queued ON refold.work (queue, priority, queue_key, due_at, run_id)
    WHERE queue <> '' AND state = 'pending';
CREATE INDEX work_placed ON refold.work (queue, queue_key) WHERE queue <> '' AND state IN ('running', 'waiting');
CREATE INDEX work_given ON refold.work (queue) WHERE queue <> '' AND state = 'pending' AND owner IS NOT NULL;
CREATE INDEX work_begun ON refold.work (queue, begun_at) WHERE queue <> '' AND begun_at IS NOT NULL;
CREATE INDEX work_due_queued ON refold.work (due_at) WHERE queue <> '' AND state = 'pending';

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
);

-- Whose turn it was last in each queue; whoever gives places holds the row meanwhile. Lost rows cost a turn.
CREATE TABLE refold.turns (
    queue TEXT COLLATE "C" PRIMARY KEY,
    last_key TEXT COLLATE "C"
);

-- How many more runs of a queue may begin, how many of one key, and when a rate allows the next one. Places
-- given to workers who are not heard of any more count only if `all_given`. What is given is counted before
-- what has begun: a run that begins in between counts twice, never not at all.
CREATE FUNCTION refold.queue_room(which TEXT, moment DOUBLE PRECISION, all_given BOOLEAN,
    OUT room BIGINT, OUT per_key BIGINT, OUT again DOUBLE PRECISION) LANGUAGE plpgsql AS $$
DECLARE
    said JSONB;
    given BIGINT;
    lately BIGINT;
    first DOUBLE PRECISION;
BEGIN
    room := 0;
    SELECT convert_from(state, 'UTF8')::jsonb INTO said FROM refold.stored_events
    WHERE originator_id = 'queue/' || replace(which, '\', '\\')
    ORDER BY originator_version DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    room := 1000000000;
    per_key := (said->>'per_key')::bigint;
    SELECT COUNT(*) INTO given FROM refold.work
    WHERE queue = which AND queue <> '' AND state = 'pending' AND owner IS NOT NULL AND (all_given OR EXISTS (
        SELECT FROM refold.workers WHERE workers.owner = work.owner AND until > clock_timestamp()));
    IF said->>'concurrency' IS NOT NULL THEN
        SELECT (said->>'concurrency')::bigint - given - COUNT(*) INTO room FROM (
            SELECT FROM refold.work WHERE queue = which AND queue <> '' AND state IN ('running', 'waiting')
            LIMIT (said->>'concurrency')::bigint) AS placed;
    END IF;
    IF said->>'rate' IS NOT NULL AND room > 0 THEN
        SELECT COUNT(*), MIN(begun_at) INTO lately, first FROM (
            SELECT begun_at FROM refold.work WHERE queue = which AND queue <> ''
            AND begun_at > moment - (said->>'period_s')::float8
            ORDER BY begun_at DESC LIMIT (said->>'rate')::bigint) AS begun;
        room := LEAST(room, (said->>'rate')::bigint - lately - given);
        IF lately = (said->>'rate')::bigint THEN
            again := first + (said->>'period_s')::float8 + 0.000001;
        END IF;
    END IF;
END $$;

-- Gives places to runs that wait in queues, at most `most`, and says when to ask again because of a rate. As
-- `events/queues.py` does it, with the same names; each statement in here sees what has been committed by then.
CREATE FUNCTION refold.claim_queued(me TEXT, moment DOUBLE PRECISION, most BIGINT, but TEXT[], tags TEXT[])
RETURNS TABLE (claimed TEXT, again_at DOUBLE PRECISION) LANGUAGE plpgsql AS $$
DECLARE
    which TEXT := '';
    space RECORD;
    free BIGINT;
    level BIGINT;
    turn TEXT;
    one_key TEXT;
    wrapped BOOLEAN;
    cap BIGINT;
    keys TEXT[];
    caps BIGINT[];
    got TEXT[];
    served TEXT;
BEGIN
    WHILE most > 0 LOOP
        SELECT queue INTO which FROM refold.work
        WHERE queue > which AND queue <> '' AND state = 'pending' ORDER BY queue LIMIT 1;
        EXIT WHEN which IS NULL;
        SELECT * INTO space FROM refold.queue_room(which, moment, FALSE);
        IF space.room > 0 THEN
            INSERT INTO refold.turns VALUES (which, NULL) ON CONFLICT DO NOTHING;
            SELECT last_key INTO turn FROM refold.turns WHERE queue = which FOR UPDATE;
            -- From here on nobody else gives places of this queue.
            UPDATE refold.work SET owner = NULL WHERE run_id IN (
                SELECT run_id FROM refold.work
                WHERE queue = which AND queue <> '' AND state = 'pending' AND owner IS NOT NULL AND NOT EXISTS (
                    SELECT FROM refold.workers WHERE workers.owner = work.owner AND until > clock_timestamp())
                FOR UPDATE SKIP LOCKED);
            SELECT * INTO space FROM refold.queue_room(which, moment, TRUE);
        END IF;
        IF space.again IS NOT NULL THEN
            RETURN QUERY SELECT NULL::text, space.again;
        END IF;
        free := LEAST(space.room, most);
        level := -9223372036854775808;
        WHILE free > 0 LOOP
            SELECT priority INTO level FROM refold.work
            WHERE queue = which AND queue <> '' AND state = 'pending' AND owner IS NULL AND priority > level
            ORDER BY priority LIMIT 1;
            EXIT WHEN level IS NULL;
            keys := '{}';
            caps := '{}';
            one_key := turn;
            wrapped := turn IS NULL;
            WHILE cardinality(keys) < free LOOP
                IF one_key IS NULL THEN
                    SELECT queue_key INTO one_key FROM refold.work
                    WHERE queue = which AND queue <> '' AND state = 'pending' AND owner IS NULL AND priority = level
                    ORDER BY queue_key LIMIT 1;
                ELSE
                    SELECT queue_key INTO one_key FROM refold.work
                    WHERE queue = which AND queue <> '' AND state = 'pending' AND owner IS NULL AND priority = level
                    AND queue_key > one_key ORDER BY queue_key LIMIT 1;
                END IF;
                IF one_key IS NULL AND NOT wrapped THEN
                    wrapped := TRUE;
                    CONTINUE;
                END IF;
                EXIT WHEN one_key IS NULL OR (wrapped AND one_key > turn);
                cap := free;
                IF space.per_key IS NOT NULL THEN
                    SELECT space.per_key - COUNT(*) INTO cap FROM refold.work
                    WHERE queue = which AND queue <> '' AND state = 'pending' AND owner IS NOT NULL
                    AND queue_key = one_key;
                    SELECT LEAST(free, cap - COUNT(*)) INTO cap FROM (
                        SELECT FROM refold.work WHERE queue = which AND queue <> ''
                        AND state IN ('running', 'waiting') AND queue_key = one_key LIMIT space.per_key) AS placed;
                END IF;
                IF cap > 0 AND EXISTS (
                    SELECT FROM refold.work WHERE queue = which AND queue <> '' AND state = 'pending'
                    AND owner IS NULL AND priority = level AND queue_key = one_key AND due_at <= moment
                    AND run_id <> ALL(but) AND run_on = ANY(tags))
                THEN
                    keys := keys || one_key;
                    caps := caps || cap;
                END IF;
            END LOOP;
            WITH line AS (
                SELECT * FROM unnest(keys, caps) WITH ORDINALITY AS line (one, most, place)
            ), waiting AS (
                SELECT first.run_id, first.due_at, line.one, line.place FROM line CROSS JOIN LATERAL (
                    SELECT run_id, due_at FROM refold.work
                    WHERE queue = which AND queue <> '' AND state = 'pending' AND owner IS NULL
                    AND priority = level AND queue_key = line.one AND due_at <= moment
                    AND run_id <> ALL(but) AND run_on = ANY(tags)
                    ORDER BY due_at, run_id LIMIT line.most FOR UPDATE SKIP LOCKED) AS first
            ), rounds AS (
                SELECT run_id, one, place,
                    row_number() OVER (PARTITION BY place ORDER BY due_at, run_id) AS round FROM waiting
            ), chosen AS (
                SELECT * FROM rounds ORDER BY round, place LIMIT free
            ), taken AS (
                UPDATE refold.work SET owner = me FROM chosen WHERE work.run_id = chosen.run_id
                RETURNING work.run_id
            )
            SELECT array_agg(taken.run_id),
                (SELECT chosen.one FROM chosen ORDER BY chosen.round DESC, chosen.place DESC LIMIT 1)
            INTO got, served FROM taken;
            IF got IS NOT NULL THEN
                RETURN QUERY SELECT unnest(got), NULL::float8;
                free := free - cardinality(got);
                most := most - cardinality(got);
                turn := served;
                UPDATE refold.turns SET last_key = served WHERE queue = which;
            END IF;
        END LOOP;
    END LOOP;
END $$
