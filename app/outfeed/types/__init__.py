"""Displays of event types: their commands and their HTTP API."""
