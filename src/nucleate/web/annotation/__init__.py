"""`nucleate annotate`: a page on which a person corrects what a model finds, and the model learns from it."""
