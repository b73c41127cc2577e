"""Curves of any training run, and where the known stopping rules would have ended it."""
