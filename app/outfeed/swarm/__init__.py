"""The coordinator: agents, tasks, auctions. A change of state and its event are one transaction; SQL is the store's."""
