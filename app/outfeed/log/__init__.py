"""Reading the log: queries, search, pages, export, and the API that writes and reads events."""
