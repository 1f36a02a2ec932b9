"""The pipeline from a source to the sockets. No Flask, no SQL: its tests run in milliseconds."""
