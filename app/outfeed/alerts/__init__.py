"""Alerts: rules on the events of the feed, and the notices that they send."""
