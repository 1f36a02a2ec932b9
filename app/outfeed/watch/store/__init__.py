"""The SQL of the watches: triggers on tables of the program, and the tables `outfeed_watch` and `outfeed_replaced`."""
