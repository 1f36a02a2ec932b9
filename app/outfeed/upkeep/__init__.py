"""Retention, archive, erasure, backup, restore, upgrade and doctor.

All of them work while the server is stopped.
"""
