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
-- Runs whose time has come, earliest first.
SELECT run_id FROM work WHERE state IN ('pending', 'waiting') AND due_at <= ? ORDER BY due_at, run_id LIMIT ?

-- name: mail
-- Runs with messages they have not consumed; those of a run that went on as another one are for that one.
SELECT run_id FROM work WHERE mail > seen AND (state <> 'done' OR status = 'continued') ORDER BY run_id LIMIT ?

-- name: running
SELECT run_id FROM work WHERE state = 'running' AND run_id > ? ORDER BY run_id LIMIT ?

-- name: next_due
SELECT MIN(due_at) FROM work WHERE state IN ('pending', 'waiting') AND due_at > ?

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
