"""Offline evaluation of a run: every system on the same rows."""
