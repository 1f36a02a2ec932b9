"""The tables of alerts: rules, their evaluation, and notices."""
