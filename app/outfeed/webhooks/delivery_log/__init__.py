"""The delivery log: its rows, and the collector that a job writes them from."""
