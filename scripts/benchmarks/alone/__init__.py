"""Outfeed by itself: each case starts the servers it needs and gives figures that have a goal of their own."""
