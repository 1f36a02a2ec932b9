"""The soak: what the tests in tests/journeys show, with more clients, for longer, at moments that a seed chooses."""
