"""Nucleate in napari, by the manifest napari.yaml beside this file: a widget that finds nuclei, drawn images to try it
on, and a reader of what `nucleate predict` wrote.

Only `panel` needs napari and Qt; what computes is loaded when it is used.
"""
