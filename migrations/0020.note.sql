-- Notes of rows that a REPLACE may remove have fewer indexes, so a REPLACE and an UPSERT write fewer pages.
-- depends: 0019.address

-- No transaction is open whose triggers could still read a note.
DROP TABLE outfeed_replaced;

-- No constraint that could fail.
CREATE TABLE outfeed_replaced (
    watch,  -- its number; negative while the notes of one new row are being read
    new_key,  -- the rowid of the new row, NULL if the table has none
    new_uniques,  -- the UNIQUE values of the new row, NULL if the note is found by its identity
    identity,  -- the rowid of the noted row, or its key as text
    is_same,  -- whether it has the key of the new row
    updated,  -- the type of the event if it is replaced by the new row
    was,  -- JSON members of `was`, char(1), JSON members of `cut`; NULL if there is no such event
    cut,  -- JSON members. Only the triggers that are there before this migration write it, until they are made again
    deleted,  -- the type of the event if it is removed
    data,  -- JSON: the data of that event
    source,
    task_id,
    agent_id
);
-- For the note of one row.
CREATE INDEX outfeed_replaced_identity ON outfeed_replaced (watch, identity);
-- For the notes of one new row.
CREATE INDEX outfeed_replaced_new ON outfeed_replaced (watch, new_uniques) WHERE new_uniques IS NOT NULL;
