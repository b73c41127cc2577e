"""Nucleate: train a nucleus segmenter on your own microscope images.

The command line (`nucleate --help`) is the main door. In Python, `from nucleate import losses` gives the loss
functions alone; importing this package imports nothing else.
"""

__version__ = "0.1.0"
