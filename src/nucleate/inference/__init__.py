"""A trained model and an image -> nuclei."""
