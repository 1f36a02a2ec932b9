"""Retention, archive, erasure, backup, restore, upgrade, doctor. All of it works with the server stopped."""
