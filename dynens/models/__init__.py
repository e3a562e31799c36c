"""Base learners. Import `dynens.models.registry` for `MODELS`; it needs the train extra."""
