"""The soak: the checks of tests/journeys with more clients and more time.

A seed chooses the moments.
"""
