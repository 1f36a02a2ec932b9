-- Whose a durable consumer is.
-- depends: 0012.rights-triggers

-- token:NAME or user:NAME, which alone may claim, read and acknowledge it, with the operators. NULL: nobody has claimed
-- it yet, or it is a webhook's.
ALTER TABLE outfeed_checkpoint ADD COLUMN owner TEXT;
