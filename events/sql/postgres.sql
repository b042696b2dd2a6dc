-- The queries of the PostgreSQL store, each under its name; `refold` stands for the schema.

-- name: append
-- Everything of a commit in one round trip, if each stream is where it is expected to be. The unique key of
-- `stored_events` refuses a version that is there already; what must be there already is looked up. Runs of
-- queues that begin with it must have their places still: who was frozen since may have lost them to others.
WITH begins AS (
    SELECT run_id FROM refold.work
    WHERE run_id = ANY(%(begins)s::text[]) AND state = 'pending' AND owner = %(owner)s::text
    ORDER BY run_id FOR UPDATE
), admitted AS (
    SELECT (SELECT COUNT(*) FROM begins) = cardinality(%(begins)s::text[]) AND NOT EXISTS (
        SELECT FROM unnest(%(heads)s::text[], %(expected)s::bigint[], %(after)b::bytea[])
            AS head (stream, expected, after)
        -- A scalar subquery is always a look into the index; a join becomes a scan of the whole table under a
        -- plan that was made when the table was small.
        WHERE head.expected > 0 AND (
            SELECT head.after = ''::bytea OR last.hash = head.after FROM refold.stored_events AS last
            WHERE last.originator_id = head.stream AND last.originator_version = head.expected) IS NOT TRUE
    ) AS fine
), numbered AS (
    INSERT INTO refold.commits (size) SELECT %(size)s::int FROM admitted WHERE fine AND %(size)s::int > 0
    RETURNING id
), stored AS (
    INSERT INTO refold.stored_events
    SELECT row.stream, row.version, row.tag, row.state, row.hash, numbered.id, row.place - 1
    FROM unnest(%(streams)s::text[], %(versions)s::bigint[], %(tags)s::text[], %(states)b::bytea[],
        %(hashes)b::bytea[]) WITH ORDINALITY AS row (stream, version, tag, state, hash, place), numbered
), contents AS (
    INSERT INTO refold.blobs (digest, data)
    SELECT content.digest, content.data
    FROM unnest(%(digests)s::text[], %(contents)b::bytea[]) AS content (digest, data), admitted WHERE fine
    ON CONFLICT (digest) DO NOTHING
), dispatched AS (
    INSERT INTO refold.work AS live
        (run_id, workflow, version, state, due_at, seen, generation, status, queue, priority, queue_key, run_on,
        begun_at, mail, owner)
    SELECT new.*, COALESCE((SELECT MAX(originator_version) FROM refold.stored_events
        WHERE originator_id = new.run_id || '/inbox'), 0),
        CASE WHEN new.state <> 'pending' OR (new.queue = '' AND new.run_on = '') THEN %(owner)s::text END
    FROM unnest(%(runs)s::text[], %(workflows)s::text[], %(pins)s::text[], %(conditions)s::text[],
        %(dues)s::float8[], %(seen)s::bigint[], %(generations)s::bigint[], %(statuses)s::text[],
        %(queues)s::text[], %(priorities)s::bigint[], %(queue_keys)s::text[], %(tags_wanted)s::text[],
        %(begun)s::float8[])
        AS new (run_id, workflow, version, state, due_at, seen, generation, status, queue, priority, queue_key,
            run_on, begun_at), admitted WHERE fine
    ON CONFLICT (run_id) DO UPDATE SET
        workflow = excluded.workflow, version = excluded.version, state = excluded.state,
        due_at = excluded.due_at, seen = excluded.seen, generation = excluded.generation,
        status = excluded.status, begun_at = excluded.begun_at,
        owner = CASE WHEN live.state <> 'done' OR excluded.state <> 'pending' THEN live.owner END
    WHERE (live.state, live.due_at, live.seen, live.generation, live.status, live.version, live.workflow)
        IS DISTINCT FROM (excluded.state, excluded.due_at, excluded.seen, excluded.generation,
            excluded.status, excluded.version, excluded.workflow)
)
SELECT fine FROM admitted

-- name: append_rows
-- The same where there are rows only, as in most steps: a quarter of the server's time less.
WITH admitted AS (
    SELECT NOT EXISTS (
        SELECT FROM unnest(%(heads)s::text[], %(expected)s::bigint[], %(after)b::bytea[])
            AS head (stream, expected, after)
        WHERE head.expected > 0 AND (
            SELECT head.after = ''::bytea OR last.hash = head.after FROM refold.stored_events AS last
            WHERE last.originator_id = head.stream AND last.originator_version = head.expected) IS NOT TRUE
    ) AS fine
), numbered AS (
    INSERT INTO refold.commits (size) SELECT %(size)s::int FROM admitted WHERE fine AND %(size)s::int > 0
    RETURNING id
), stored AS (
    INSERT INTO refold.stored_events
    SELECT row.stream, row.version, row.tag, row.state, row.hash, numbered.id, row.place - 1
    FROM unnest(%(streams)s::text[], %(versions)s::bigint[], %(tags)s::text[], %(states)b::bytea[],
        %(hashes)b::bytea[]) WITH ORDINALITY AS row (stream, version, tag, state, hash, place), numbered
)
SELECT fine FROM admitted

-- name: hint
SELECT pg_notify(%(channel)s, '')

-- name: lock_inboxes
-- Who writes to an inbox waits for who is doing so: else of many, all but one would have to begin again.
SELECT pg_advisory_xact_lock(key) FROM unnest(%(keys)s::bigint[]) AS wanted (key) ORDER BY key

-- name: lock_work
-- In the order in which everybody locks them, so nobody waits for one who waits for him.
SELECT owner FROM refold.work WHERE run_id = ANY(%(runs)s::text[]) ORDER BY run_id FOR UPDATE

-- name: places
SELECT run_id FROM refold.work WHERE run_id = ANY(%(runs)s::text[]) AND state = 'pending' AND owner = %(owner)s
ORDER BY run_id FOR UPDATE

-- name: tails
-- Version and hash of the last rows of streams.
SELECT wanted.stream, last.originator_version, last.hash
FROM unnest(%(streams)s::text[]) AS wanted (stream) CROSS JOIN LATERAL (
    SELECT originator_version, hash FROM refold.stored_events
    WHERE originator_id = wanted.stream ORDER BY originator_version DESC LIMIT 1) AS last

-- name: set_mail
-- Inboxes that have grown; those of runs that are new in the same commit, too.
UPDATE refold.work SET mail = GREATEST(mail, (
    SELECT grown.version FROM unnest(%(runs)s::text[], %(versions)s::bigint[]) AS grown (run_id, version)
    WHERE grown.run_id = work.run_id))
WHERE run_id = ANY(%(runs)s::text[])

-- name: barrier
-- A transaction with nothing in it but a word in the server's own log, which standbys have to confirm.
SELECT FROM pg_logical_emit_message(true, 'refold', '')

-- name: read
SELECT originator_id, originator_version, topic, state, hash, COALESCE(first_position + place, 0)
FROM refold.stored_events LEFT JOIN refold.commits ON commits.id = commit_id
WHERE originator_id = %(stream)s::text AND originator_version > %(after)s::bigint
ORDER BY originator_version LIMIT %(limit)s::bigint

-- name: read_unplaced
SELECT originator_id, originator_version, topic, state, hash, 0 FROM refold.stored_events
WHERE originator_id = %(stream)s::text AND originator_version > %(after)s::bigint
ORDER BY originator_version LIMIT %(limit)s::bigint

-- name: give_positions
-- To every commit that is visible by now; one that becomes visible later gets a later one. One gives positions
-- at a time: readers wait for each other here, whoever appends never does. All of it is one statement, for the
-- server goes through with that whatever becomes of its client: in a transaction or a pipeline of several, a
-- network that broke in the middle held up all readers. The lock is of this schema: its name is put in.
DO $$ BEGIN
    IF EXISTS (SELECT FROM refold.commits WHERE first_position IS NULL) THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('refold.positions', 0));
        WITH last AS (
            SELECT COALESCE(MAX(first_position + size), 1) AS free FROM (
                SELECT first_position, size FROM refold.commits WHERE first_position IS NOT NULL
                ORDER BY first_position DESC LIMIT 1) AS newest
        ), fresh AS (
            SELECT id, SUM(size) OVER (ORDER BY id) - size AS before
            FROM refold.commits WHERE first_position IS NULL
        )
        UPDATE refold.commits SET first_position = last.free + fresh.before
        FROM fresh, last WHERE commits.id = fresh.id;
    END IF;
END $$

-- name: scan
-- Whole commits are found by their first position; the one in the middle of which `after` lies, too.
SELECT originator_id, originator_version, topic, state, hash, first_position + place AS position
FROM refold.commits JOIN refold.stored_events ON commit_id = commits.id
WHERE first_position >= COALESCE((SELECT MAX(first_position) FROM refold.commits
    WHERE first_position <= %(after)s::bigint + 1), 1)
AND first_position <= %(after)s::bigint + %(limit)s::bigint
AND first_position + place > %(after)s::bigint
ORDER BY position LIMIT %(limit)s::bigint

-- name: position
SELECT COALESCE(MAX(first_position + size), 1) - 1 FROM (
    SELECT first_position, size FROM refold.commits WHERE first_position IS NOT NULL
    ORDER BY first_position DESC LIMIT 1) AS newest

-- name: count_commits
SELECT COALESCE(MAX(id), 0), COUNT(*) FROM refold.commits WHERE id > %(after)s::bigint

-- name: blob
SELECT data FROM refold.blobs WHERE digest = %(digest)s::text

-- name: blobs
SELECT digest FROM refold.blobs WHERE digest > %(after)s::text ORDER BY digest LIMIT %(limit)s::bigint

-- name: work
SELECT run_id, workflow, version, state, due_at, seen, generation, status, queue, priority, queue_key,
    run_on, begun_at
FROM refold.work WHERE run_id = %(run)s::text

-- name: due
-- Runs that workers with one of these tags ('' is in any run that says nothing of where) may go on with, earliest
-- first. Those that wait for a place in a queue are not among them.
SELECT run_id FROM unnest(%(tags)s::text[]) AS tag CROSS JOIN LATERAL (
    SELECT run_id, due_at FROM refold.work
    WHERE (state = 'waiting' OR (state = 'pending' AND queue = '')) AND run_on = tag AND due_at <= %(now)s::float8
    ORDER BY due_at, run_id LIMIT %(limit)s::bigint) AS due
ORDER BY due_at, run_id LIMIT %(limit)s::bigint

-- name: mail
-- Runs with messages they have not consumed; those of a run that went on as another one are for that one.
SELECT run_id FROM refold.work WHERE mail > seen AND (state <> 'done' OR status = 'continued')
AND NOT (queue <> '' AND state = 'pending') AND run_on = ANY(%(tags)s::text[])
ORDER BY run_id LIMIT %(limit)s::bigint

-- name: mail_elsewhere
-- The same of those that wait for a place in a queue, or for a worker with another tag than these.
SELECT run_id FROM refold.work WHERE mail > seen AND (state <> 'done' OR status = 'continued') AND state <> 'done'
AND ((queue <> '' AND state = 'pending') OR run_on <> ALL(%(tags)s::text[]))
ORDER BY run_id LIMIT %(limit)s::bigint

-- name: running
SELECT run_id FROM refold.work WHERE state = 'running' AND run_id > %(after)s::text
AND run_on = ANY(%(tags)s::text[]) ORDER BY run_id LIMIT %(limit)s::bigint

-- name: next_due
SELECT MIN(due_at) FROM (
    SELECT due.due_at FROM unnest(%(tags)s::text[]) AS tag CROSS JOIN LATERAL (
        SELECT MIN(due_at) AS due_at FROM refold.work
        WHERE (state = 'waiting' OR (state = 'pending' AND queue = '')) AND run_on = tag
        AND due_at > %(now)s::float8) AS due
    UNION ALL SELECT MIN(due_at) FROM refold.work
    WHERE queue <> '' AND state = 'pending' AND due_at > %(now)s::float8) AS first

-- name: crowds
SELECT queue, SUM(pending)::bigint, SUM(placed)::bigint, MIN(due_at) FROM (
    SELECT queue, COUNT(*) AS pending, 0 AS placed, MIN(due_at) AS due_at FROM refold.work
    WHERE queue <> '' AND state = 'pending' GROUP BY queue
    UNION ALL SELECT queue, 0, COUNT(*), NULL FROM refold.work
    WHERE queue <> '' AND state IN ('running', 'waiting') GROUP BY queue) AS each
GROUP BY queue ORDER BY queue

-- name: holders
SELECT run_id FROM refold.work WHERE queue <> '' AND state IN ('running', 'waiting') AND queue = %(queue)s::text
ORDER BY begun_at, run_id LIMIT %(limit)s::bigint

-- name: streams
-- Names between these two, one look into the index for each.
WITH RECURSIVE names (name) AS (
    SELECT MIN(originator_id) FROM refold.stored_events
    WHERE originator_id >= %(first)s::text AND originator_id < %(after)s::text
    UNION ALL SELECT (SELECT MIN(originator_id) FROM refold.stored_events
        WHERE originator_id > name AND originator_id < %(after)s::text) FROM names WHERE name IS NOT NULL)
SELECT name FROM names WHERE name IS NOT NULL

-- name: all_work
SELECT run_id, workflow, version, state, due_at, seen, generation, status, queue, priority, queue_key,
    run_on, begun_at, mail
FROM refold.work ORDER BY run_id

-- name: clear_work
DELETE FROM refold.work

-- name: insert_work
INSERT INTO refold.work (run_id, workflow, version, state, due_at, seen, generation, status, queue, priority,
    queue_key, run_on, begun_at, mail)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: hold
SELECT pg_try_advisory_lock(%(key)s::bigint)

-- name: set_executor
INSERT INTO refold.executor (owner, pid, host, since)
VALUES (%(owner)s, %(pid)s, %(host)s, %(since)s)
ON CONFLICT (only_one) DO UPDATE SET
    owner = excluded.owner, pid = excluded.pid, host = excluded.host, since = excluded.since

-- name: executor
SELECT owner, pid, host, since FROM refold.executor

-- ---- who executes

-- name: join
-- Nothing while somebody has the whole log for itself.
INSERT INTO refold.workers (owner, host, pid, place, since, until)
SELECT %(owner)s, %(host)s, %(pid)s, %(place)s, %(since)s, clock_timestamp() + make_interval(secs => %(ttl)s::float8)
WHERE pg_try_advisory_xact_lock_shared(%(key)s::bigint)
ON CONFLICT (owner) DO UPDATE SET until = excluded.until
RETURNING owner

-- name: beat
-- Nothing when others have been allowed to take our runs meanwhile.
UPDATE refold.workers SET until = clock_timestamp() + make_interval(secs => %(ttl)s::float8)
WHERE owner = %(owner)s AND until > clock_timestamp() RETURNING owner

-- name: leave
WITH gone AS (DELETE FROM refold.workers WHERE owner = %(owner)s)
UPDATE refold.work SET owner = NULL WHERE owner = %(owner)s AND state <> 'done'

-- name: look
-- What there is to do for a worker, in one round trip: `mine` are runs that want attention, its own and those
-- that become its own, for they are nobody's, or of one who has not been heard of for too long; `elsewhere`
-- are those with mail that wait for a place in a queue, or for a worker with another tag; `queued` says that any
-- run waits for a place, `next` when something falls due.
WITH due AS (
    SELECT found.run_id FROM unnest(%(tags)s::text[]) AS tag CROSS JOIN LATERAL (
        SELECT run_id FROM refold.work
        WHERE (state = 'waiting' OR (state = 'pending' AND queue = '')) AND run_on = tag
        AND due_at <= %(now)s::float8 AND run_id <> ALL(%(skip)s::text[])
        AND (owner IS NULL OR (owner <> %(owner)s AND NOT EXISTS (
            SELECT FROM refold.workers WHERE workers.owner = work.owner AND until > clock_timestamp())))
        ORDER BY due_at, run_id LIMIT %(room)s::bigint FOR UPDATE SKIP LOCKED) AS found
    LIMIT %(room)s::bigint
), mailed AS (
    SELECT run_id FROM refold.work
    WHERE mail > seen AND (state <> 'done' OR status = 'continued') AND run_id <> ALL(%(skip)s::text[])
    AND NOT (queue <> '' AND state = 'pending') AND run_on = ANY(%(tags)s::text[])
    AND (owner IS NULL OR (owner <> %(owner)s AND NOT EXISTS (
        SELECT FROM refold.workers WHERE workers.owner = work.owner AND until > clock_timestamp())))
    ORDER BY run_id LIMIT GREATEST(%(room)s::bigint - (SELECT COUNT(*) FROM due), 0) FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE refold.work SET owner = %(owner)s FROM (TABLE due UNION TABLE mailed) AS free
    WHERE work.run_id = free.run_id RETURNING work.run_id
), ours AS (
    SELECT run_id FROM refold.work
    WHERE owner = %(owner)s AND ((state IN ('pending', 'waiting') AND due_at <= %(now)s::float8)
        OR (mail > seen AND (state <> 'done' OR status = 'continued')))
    AND run_id <> ALL(%(skip)s::text[])
    ORDER BY due_at NULLS LAST, run_id LIMIT %(limit)s::bigint
), elsewhere AS (
    SELECT run_id FROM refold.work WHERE mail > seen AND (state <> 'done' OR status = 'continued')
    AND state <> 'done' AND ((queue <> '' AND state = 'pending') OR run_on <> ALL(%(tags)s::text[]))
    ORDER BY run_id LIMIT %(limit)s::bigint
)
SELECT 'mine', run_id, NULL::float8 FROM claimed
UNION ALL SELECT 'mine', run_id, NULL FROM ours
UNION ALL SELECT 'elsewhere', run_id, NULL FROM elsewhere
UNION ALL SELECT 'queued', NULL, NULL WHERE EXISTS (
    SELECT FROM refold.work WHERE queue <> '' AND state = 'pending')
UNION ALL SELECT 'next', NULL, due_at FROM unnest(%(tags)s::text[]) AS tag CROSS JOIN LATERAL (
    SELECT MIN(due_at) AS due_at FROM refold.work
    WHERE (state = 'waiting' OR (state = 'pending' AND queue = '')) AND run_on = tag
    AND due_at > %(now)s::float8) AS next
UNION ALL SELECT 'next', NULL, MIN(due_at) FROM refold.work
WHERE queue <> '' AND state = 'pending' AND due_at > %(now)s::float8
-- Who has which run need not survive a crash of the server, so nobody waits for the disk here.
UNION ALL SELECT 'soon', NULL, NULL WHERE set_config('synchronous_commit', 'off', TRUE) IS NULL

-- name: claim_queued
SELECT claimed, again_at FROM refold.claim_queued(
    %(owner)s::text, %(now)s::float8, %(limit)s::bigint, %(skip)s::text[], %(tags)s::text[])

-- name: mailed
SELECT run_id FROM refold.work
WHERE run_id = ANY(%(runs)s::text[]) AND mail > seen AND state <> 'done'
AND (owner IS NULL OR owner = %(owner)s OR NOT EXISTS (
    SELECT FROM refold.workers WHERE workers.owner = work.owner AND until > clock_timestamp()))

-- name: running_mine
-- Runs in the middle of something, in order: ours, and those that become ours. As in `look`, without the disk.
WITH free AS (
    SELECT run_id FROM refold.work
    WHERE state = 'running' AND run_id > %(after)s::text AND run_id <> ALL(%(skip)s::text[])
    AND run_on = ANY(%(tags)s::text[])
    AND (owner IS NULL OR (owner <> %(owner)s AND NOT EXISTS (
        SELECT FROM refold.workers WHERE workers.owner = work.owner AND until > clock_timestamp())))
    ORDER BY run_id LIMIT %(room)s::bigint FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE refold.work SET owner = %(owner)s FROM free WHERE work.run_id = free.run_id RETURNING work.run_id
), ours AS (
    SELECT run_id FROM refold.work WHERE state = 'running' AND owner = %(owner)s AND run_id > %(after)s::text
    ORDER BY run_id LIMIT %(limit)s::bigint
)
SELECT run_id FROM (TABLE claimed UNION TABLE ours) AS mine
WHERE set_config('synchronous_commit', 'off', TRUE) IS NOT NULL
ORDER BY run_id LIMIT %(limit)s::bigint

-- name: take
-- Not one that waits for a place in a queue, or for a worker with another tag.
UPDATE refold.work SET owner = %(owner)s
WHERE run_id = %(run)s AND (owner IS NULL OR owner = %(owner)s OR state = 'done' OR NOT EXISTS (
    SELECT FROM refold.workers WHERE workers.owner = work.owner AND until > clock_timestamp()))
AND (owner = %(owner)s OR queue = '' OR state <> 'pending') AND (run_on = ANY(%(tags)s::text[]) OR state = 'done')
RETURNING run_id

-- name: let_go
UPDATE refold.work SET owner = NULL WHERE run_id = ANY(%(runs)s::text[]) AND owner = %(owner)s

-- name: ended
SELECT run_id FROM refold.work WHERE run_id = ANY(%(runs)s::text[]) AND state = 'done'

-- name: neighbours
-- Workers of which one at this place can tell whether they live.
SELECT owner, pid FROM refold.workers WHERE place = %(place)s AND owner <> %(owner)s

-- name: bury
DELETE FROM refold.workers WHERE owner = ANY(%(owners)s::text[])

-- name: living
SELECT owner, pid, host, since FROM refold.workers WHERE until > clock_timestamp() ORDER BY since, owner

-- name: workers
SELECT owner, host, pid, since, until > clock_timestamp(),
    (SELECT COUNT(*) FROM refold.work WHERE work.owner = workers.owner AND state <> 'done')
FROM refold.workers ORDER BY since, owner
