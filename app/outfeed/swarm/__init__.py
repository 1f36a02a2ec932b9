"""The coordinator of agents, tasks and auctions.

Each state change and its event are written in one transaction. The SQL stands in `store/`.
"""
