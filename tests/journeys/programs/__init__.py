"""Programs that know nothing of Outfeed, built on unmodified libraries."""
