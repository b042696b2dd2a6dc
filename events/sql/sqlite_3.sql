-- Schema 3: mail of a run that went on as another one is for that one.

DROP INDEX work_mail;
CREATE INDEX work_mail ON work (run_id) WHERE mail > seen AND (state <> 'done' OR status = 'continued');
