"""Distilling the pool into one small student."""
