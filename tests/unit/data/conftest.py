"""Settings of the data tests."""

import pytest
from hypothesis import settings

from tests.unit.data.encoded import SPECS, fit, fit_joined
from tests.unit.data.tables import mixed_table

settings.register_profile("dynens", deadline=None)
settings.load_profile("dynens")


@pytest.fixture(scope="module")
def encoder():
    return fit(SPECS, mixed_table())


@pytest.fixture(scope="module")
def joined():
    return fit_joined()
