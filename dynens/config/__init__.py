"""The configuration tree of a run; each section lives in a file of its own."""
