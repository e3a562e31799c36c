"""The difficulty router: which rows deserve the ensemble."""
