"""Datasets known by name: fetched, made up, or read from a local folder."""
