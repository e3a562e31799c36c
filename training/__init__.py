"""Training pipeline: the stages of a run as Ray tasks."""
