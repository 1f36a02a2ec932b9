"""Webhooks: the server posts events to URLs.

Alerts use their checked addresses. No other package makes outbound requests.
"""
