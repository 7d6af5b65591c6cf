"""What a user puts into a Pipeline: the stages, their Params and the annotations that pass between them."""
