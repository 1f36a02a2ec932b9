"""The log of events: the API that writes it, queries, search and pages."""
