"""Training, evaluation and export: the only room in which torch lives."""
