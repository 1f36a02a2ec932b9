"""Gateways: other protocols in and out, one folder each.

A gateway turns requests of another protocol into events, or events into that protocol. Its rules:

- One folder for each gateway, named after the protocol. Python imports its modules on the first request or command that
  needs them (tests/gateways/test_lazy.py). `feature.py` and `api.py` are imported with every server, so they import a
  gateway's modules inside their functions, and no library that only a gateway uses.
- `api.py` has the routes, with their permissions and shapes. A view calls one function of the gateway's `endpoint.py`.
- A request becomes a list of dictionaries with the fields of `log_event`. `intake.append` checks the rights to their
  types and writes all of them or none. A gateway writes in no other way, so limits, rights and redaction are those of
  `POST /api/events`.
- If the protocol has an id of a message, it becomes the event's id, so that a retry is written once. A sender with a
  write-only address gets a prefix before its ids, and so cannot take an id that another writer will use.
- Nothing in a request is trusted: each body has a limit of bytes, items and depth before it is read, and an error names
  the field and the rule.
- Each gateway has a page in `docs/`, and a test in which an unmodified client of another project sends through
  `kill -9`, with no event lost and none written twice.

Other features do not import gateways. Deleting this folder and its line in `features.py` leaves everything else.
"""
