"""Building blocks of the neural learners (PyTorch), grouped by role."""
