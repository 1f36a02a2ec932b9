"""The SQL of agents, tasks and auctions, and of the chart. Each function takes a database or a connection."""
