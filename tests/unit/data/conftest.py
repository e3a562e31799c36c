"""Settings of the data tests."""

from hypothesis import settings

settings.register_profile("dynens", deadline=None)
settings.load_profile("dynens")
