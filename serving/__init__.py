"""The Ray Serve endpoint, its admission and its load generator."""
