-- What the file of read models keeps beside the read models themselves.

-- Each projection, and how far it has come. `slot` is `live` for the table that is read, `building` for
-- one that is being built beside it. `anchor` is the hash of the event at `position`: it tells whether
-- the log is still the one that was folded.
CREATE TABLE IF NOT EXISTS projections (
    name TEXT NOT NULL,
    slot TEXT NOT NULL,
    version INTEGER NOT NULL,
    schema TEXT NOT NULL,
    position INTEGER NOT NULL,
    anchor BLOB NOT NULL,
    PRIMARY KEY (name, slot)
) WITHOUT ROWID;

-- Events that a projection could not fold.
CREATE TABLE IF NOT EXISTS parked_events (
    projection TEXT NOT NULL,
    slot TEXT NOT NULL,
    position INTEGER NOT NULL,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    tag TEXT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (projection, slot, position)
) WITHOUT ROWID;

-- Types of events that this code does not know, and how many of each a projection has passed.
CREATE TABLE IF NOT EXISTS unknown_events (
    projection TEXT NOT NULL,
    slot TEXT NOT NULL,
    tag TEXT NOT NULL,
    events INTEGER NOT NULL,
    first_position INTEGER NOT NULL,
    PRIMARY KEY (projection, slot, tag)
) WITHOUT ROWID
