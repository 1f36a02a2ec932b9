"""Webhooks: the server posts events to URLs. The only package that makes outbound requests."""
