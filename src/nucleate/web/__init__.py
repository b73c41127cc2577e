"""The local page that shows predicted images: `nucleate view`."""
