-- The queries of the SQLite store, each under its name.

-- name: append
-- One event; its position (`rowid`) is given by SQLite.
INSERT INTO stored_events (originator_id, originator_version, topic, state, hash) VALUES (?, ?, ?, ?, ?)

-- name: tail
-- Version and hash of a stream's last row.
SELECT originator_version, hash FROM stored_events
WHERE originator_id = ? ORDER BY originator_version DESC LIMIT 1

-- name: tails
-- The same for many streams, given as a JSON array.
SELECT wanted.value, last.originator_version, last.hash
FROM json_each(?) AS wanted CROSS JOIN stored_events AS last
WHERE last.originator_id = wanted.value AND last.originator_version =
    (SELECT MAX(originator_version) FROM stored_events WHERE originator_id = wanted.value)

-- name: read
-- Rows of one stream in order.
SELECT originator_id, originator_version, topic, state, hash, rowid FROM stored_events
WHERE originator_id = ? AND originator_version > ? ORDER BY originator_version LIMIT ?

-- name: scan
-- Rows of all streams in the order of commit: positions are given under the write lock, and a rolled
-- back transaction gives its positions back.
SELECT originator_id, originator_version, topic, state, hash, rowid FROM stored_events
WHERE rowid > ? ORDER BY rowid LIMIT ?

-- name: position
-- Position of the last row, from SQLite's own books: so `verify` notices when the last rows are gone.
SELECT seq FROM sqlite_sequence WHERE name = 'stored_events'

-- name: set_work
-- A row of `work`, all columns but `mail`. Nothing is written when nothing changed, which is so for
-- most steps, and saves the pages of this table in their commits. A run that is new may have had mail before.
-- What `run.started` says (queue … run_on) never changes, and `begun_at` only with the generation.
INSERT INTO work (run_id, workflow, version, state, due_at, seen, generation, status, queue, priority,
    queue_key, run_on, begun_at, mail)
SELECT new.*, IFNULL(
    (SELECT MAX(originator_version) FROM stored_events WHERE originator_id = new.run_id || '/inbox'), 0)
FROM (SELECT ? AS run_id, ? AS workflow, ? AS version, ? AS state, ? AS due_at, ? AS seen, ? AS generation,
    ? AS status, ? AS queue, ? AS priority, ? AS queue_key, ? AS run_on, ? AS begun_at) AS new WHERE TRUE
ON CONFLICT (run_id) DO UPDATE SET
    workflow = excluded.workflow, version = excluded.version, state = excluded.state,
    due_at = excluded.due_at, seen = excluded.seen, generation = excluded.generation,
    status = excluded.status, begun_at = excluded.begun_at
WHERE state <> excluded.state OR due_at IS NOT excluded.due_at OR seen <> excluded.seen
    OR generation <> excluded.generation OR status <> excluded.status
    OR version <> excluded.version OR workflow <> excluded.workflow

-- name: set_mail
-- The run's inbox has grown.
UPDATE work SET mail = MAX(mail, ?) WHERE run_id = ?

-- name: add_blob
-- The content of a large value; it may be there already, from another event.
INSERT OR IGNORE INTO blobs (digest, data) VALUES (?, ?)

-- name: blob
SELECT data FROM blobs WHERE digest = ?

-- name: blobs
SELECT digest FROM blobs WHERE digest > ? ORDER BY digest LIMIT ?

-- name: work
SELECT run_id, workflow, version, state, due_at, seen, generation, status, queue, priority, queue_key,
    run_on, begun_at
FROM work WHERE run_id = ?

-- name: due
-- Runs that any worker with this tag ('': any worker at all) may go on with, earliest first. Those that wait
-- for a place in a queue are not among them.
SELECT run_id, due_at FROM work
WHERE (state = 'waiting' OR (state = 'pending' AND queue = '')) AND run_on = ? AND due_at <= ?
ORDER BY due_at, run_id LIMIT ?

-- name: mail
-- Runs with messages they have not consumed; those of a run that went on as another one are for that one.
SELECT run_id FROM work WHERE mail > seen AND (state <> 'done' OR status = 'continued')
AND NOT (queue <> '' AND state = 'pending') AND run_on IN (SELECT value FROM json_each(?))
ORDER BY run_id LIMIT ?

-- name: mail_elsewhere
-- The same of those that wait for a place in a queue, or for a worker with another tag than these.
SELECT run_id FROM work WHERE mail > seen AND state <> 'done'
AND ((queue <> '' AND state = 'pending') OR run_on NOT IN (SELECT value FROM json_each(?)))
ORDER BY run_id LIMIT ?

-- name: running
SELECT run_id FROM work WHERE state = 'running' AND run_id > ?
AND run_on IN (SELECT value FROM json_each(?)) ORDER BY run_id LIMIT ?

-- name: next_due
SELECT MIN(due_at) FROM work
WHERE (state = 'waiting' OR (state = 'pending' AND queue = '')) AND run_on = ? AND due_at > ?

-- name: next_due_queued
SELECT MIN(due_at) FROM work WHERE queue <> '' AND state = 'pending' AND due_at > ?

-- name: next_queue
SELECT queue FROM work WHERE queue <> '' AND state = 'pending' AND queue > ? ORDER BY queue LIMIT 1

-- name: next_priority
SELECT priority FROM work WHERE queue <> '' AND state = 'pending' AND queue = ? AND priority > ?
ORDER BY priority LIMIT 1

-- name: first_key
SELECT queue_key FROM work WHERE queue <> '' AND state = 'pending' AND queue = ? AND priority = ?
AND queue_key >= ? ORDER BY queue_key LIMIT 1

-- name: next_key
SELECT queue_key FROM work WHERE queue <> '' AND state = 'pending' AND queue = ? AND priority = ?
AND queue_key > ? ORDER BY queue_key LIMIT 1

-- name: oldest_in_queue
SELECT run_id FROM work WHERE queue <> '' AND state = 'pending' AND queue = ? AND priority = ?
AND queue_key = ? AND due_at <= ? AND run_on IN (SELECT value FROM json_each(?))
ORDER BY due_at, run_id LIMIT ?

-- name: placed
SELECT COUNT(*) FROM (
    SELECT 1 FROM work WHERE queue <> '' AND state IN ('running', 'waiting') AND queue = ? LIMIT ?)

-- name: placed_of
SELECT COUNT(*) FROM (SELECT 1 FROM work WHERE queue <> '' AND state IN ('running', 'waiting')
    AND queue = ? AND queue_key = ? LIMIT ?)

-- name: begun
SELECT begun_at FROM work WHERE queue <> '' AND begun_at IS NOT NULL AND queue = ? AND begun_at > ?
ORDER BY begun_at DESC LIMIT ?

-- name: crowds
SELECT queue, SUM(pending), SUM(placed), MIN(due_at) FROM (
    SELECT queue, COUNT(*) AS pending, 0 AS placed, MIN(due_at) AS due_at FROM work
    WHERE queue <> '' AND state = 'pending' GROUP BY queue
    UNION ALL SELECT queue, 0, COUNT(*), NULL FROM work
    WHERE queue <> '' AND state IN ('running', 'waiting') GROUP BY queue)
GROUP BY queue ORDER BY queue

-- name: holders
SELECT run_id FROM work WHERE queue <> '' AND state IN ('running', 'waiting') AND queue = ?
ORDER BY begun_at, run_id LIMIT ?

-- name: streams
-- Names between these two, one look into the index for each.
WITH RECURSIVE names (name) AS (
    SELECT MIN(originator_id) FROM stored_events WHERE originator_id >= ?1 AND originator_id < ?2
    UNION ALL SELECT (SELECT MIN(originator_id) FROM stored_events
        WHERE originator_id > name AND originator_id < ?2) FROM names WHERE name IS NOT NULL)
SELECT name FROM names WHERE name IS NOT NULL

-- name: all_work
SELECT run_id, workflow, version, state, due_at, seen, generation, status, queue, priority, queue_key,
    run_on, begun_at, mail
FROM work ORDER BY run_id

-- name: clear_work
DELETE FROM work

-- name: insert_work
INSERT INTO work (run_id, workflow, version, state, due_at, seen, generation, status, queue, priority,
    queue_key, run_on, begun_at, mail)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
