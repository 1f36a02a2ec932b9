"""Edges.

Further hosts that serve viewers from a Redis or Valkey Stream, which the origin keeps up to its outbox.

Only this folder imports redis. Nothing imports it unless OUTFEED_ENGINE is set, or for `outfeed edge`.
"""
