"""Durable consumers: named readers whose position is kept in the database. Their API and commands."""
