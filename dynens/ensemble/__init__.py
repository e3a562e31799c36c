"""Combining base learners: blends, weights and the choice of the serving trio."""
