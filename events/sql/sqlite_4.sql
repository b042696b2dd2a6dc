-- Schema 4: where a run waits for its turn, who may execute it, and when it began.

ALTER TABLE work ADD COLUMN queue TEXT NOT NULL DEFAULT '';
ALTER TABLE work ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE work ADD COLUMN queue_key TEXT NOT NULL DEFAULT '';
ALTER TABLE work ADD COLUMN run_on TEXT NOT NULL DEFAULT '';
ALTER TABLE work ADD COLUMN begun_at REAL;
