-- Schema 4: where a run waits for its turn, who may execute it, and when it began.

ALTER TABLE work ADD COLUMN queue TEXT NOT NULL DEFAULT '';
ALTER TABLE work ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE work ADD COLUMN queue_key TEXT NOT NULL DEFAULT '';
ALTER TABLE work ADD COLUMN run_on TEXT NOT NULL DEFAULT '';
ALTER TABLE work ADD COLUMN begun_at REAL;

-- One index for each question again: what is due for workers with a tag; who waits in a queue, by priority and
-- key; who has a place in it; and who began lately.
DROP INDEX work_due;
CREATE INDEX work_due ON work (run_on, due_at) WHERE state = 'waiting' OR (state = 'pending' AND queue = '');
CREATE INDEX work_due_queued ON work (due_at) WHERE queue <> '' AND state = 'pending';
CREATE INDEX work_queued ON work (queue, priority, queue_key, due_at, run_id)
    WHERE queue <> '' AND state = 'pending';
CREATE INDEX work_placed ON work (queue, queue_key) WHERE queue <> '' AND state IN ('running', 'waiting');
CREATE INDEX work_begun ON work (queue, begun_at) WHERE queue <> '' AND begun_at IS NOT NULL;
