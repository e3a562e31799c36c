"""Raw rows to encoded rows, the same in training and in serving."""
