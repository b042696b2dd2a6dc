-- What the schema of a log keeps beside its read models; see views.sql, which says what each is for.

CREATE TABLE IF NOT EXISTS projections (
    name TEXT COLLATE "C" NOT NULL,
    slot TEXT COLLATE "C" NOT NULL,
    version BIGINT NOT NULL,
    schema TEXT NOT NULL,
    position BIGINT NOT NULL,
    anchor BYTEA NOT NULL,
    PRIMARY KEY (name, slot)
);

CREATE TABLE IF NOT EXISTS parked_events (
    projection TEXT COLLATE "C" NOT NULL,
    slot TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    stream TEXT NOT NULL,
    version BIGINT NOT NULL,
    tag TEXT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (projection, slot, position)
);

CREATE TABLE IF NOT EXISTS unknown_events (
    projection TEXT COLLATE "C" NOT NULL,
    slot TEXT COLLATE "C" NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    events BIGINT NOT NULL,
    first_position BIGINT NOT NULL,
    PRIMARY KEY (projection, slot, tag)
)
;

-- The log with the words of this project, and events as text.
CREATE OR REPLACE VIEW events AS
SELECT first_position + place AS position, originator_id AS stream, originator_version AS version, topic AS tag,
    convert_from(state, 'UTF8') AS event, encode(hash, 'hex') AS hash
FROM stored_events LEFT JOIN commits ON commits.id = commit_id
