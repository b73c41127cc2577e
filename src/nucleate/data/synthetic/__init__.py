"""Drawn images of nuclei with their true masks."""

from nucleate.data.synthetic.microscopy import STYLES, fluorescence, tissue, write_folder

__all__ = ["STYLES", "fluorescence", "tissue", "write_folder"]
