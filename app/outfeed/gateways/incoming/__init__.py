"""Incoming: messages by `curl -d`, and webhooks, as events.

`endpoint.py` answers the requests. `mapping.py` and `template.py` turn a webhook's body into events by the tables of
`mappings/`, and `signatures.py` checks its signature. `store.py` has the write-only addresses.
"""
