"""Nuclei as objects: label images made into training targets, grouped from maps, and compared with one another."""
