"""The SQL of watches: triggers on the program's tables, and their tables."""
