"""Parts of images: which parts, and how they are varied for training."""
