"""Edges.

An edge is an additional host that serves viewers from a Redis or Valkey Stream. The origin copies its outbox there.

Only this folder imports redis, and only if OUTFEED_ENGINE is set or for `outfeed edge`.
"""
