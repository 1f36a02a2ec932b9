"""The server's own durable consumers, which post events to others: the only room that calls on other machines."""
