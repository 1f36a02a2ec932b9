"""OpenTelemetry logs in: `POST /v1/logs`, and coding agents.

`endpoint.py` answers the requests. Both encodings become the records of `record.py`, and `event.py` turns these into
events. `agents.py` has the settings and displays of coding agents.
"""
