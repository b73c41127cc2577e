"""The report of a run: its numbers, its learning curves and its pictures on one page that stands alone."""
