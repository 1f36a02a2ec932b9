"""The pipeline from a source to the sockets.

The package imports neither Flask nor SQL, so its tests run in milliseconds.
"""
