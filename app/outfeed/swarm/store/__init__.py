"""The SQL of agents, tasks, auctions and the chart.

Each function takes a database or a connection.
"""
