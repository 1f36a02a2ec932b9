-- The owner of a durable consumer.
-- depends: 0012.rights-triggers

-- token:NAME or user:NAME. Only this principal and operators may claim, read and acknowledge the consumer. NULL: the
-- consumer has not been claimed yet, or it is a webhook's.
ALTER TABLE outfeed_checkpoint ADD COLUMN owner TEXT;
