"""Files to arrays and back: images, masks, folders of them, and what prediction writes. Knows no torch."""
