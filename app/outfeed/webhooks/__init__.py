"""Webhooks: the server posts events to URLs.

No other package makes outbound requests.
"""
