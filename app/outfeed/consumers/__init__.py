"""Durable consumers: named readers with a position in the database."""
