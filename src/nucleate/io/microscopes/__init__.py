"""Files as microscopes write them, by the libraries that are kept for each: ND2 (Nikon), LIF (Leica), CZI (Zeiss)."""

from nucleate.io.microscopes.reader import SUFFIXES, kind, open_microscope, scenes

__all__ = ["SUFFIXES", "kind", "open_microscope", "scenes"]
