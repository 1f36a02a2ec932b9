"""The `outfeed` command: click groups, one file a group, each a thin shell over the public API."""
