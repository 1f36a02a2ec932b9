"""The delivery log: its rows, and the buffer that a job writes to them."""
