"""Settings of the data tests."""

import pytest
from hypothesis import settings

from dynens.data.datasets.presets import dataset_from_files
from tests.unit.data.encoded import SPECS, fit, fit_joined
from tests.unit.data.tables import EIGHTY, mixed_table, written

settings.register_profile("dynens", deadline=None)
settings.load_profile("dynens")


@pytest.fixture(scope="module")
def encoder():
    return fit(SPECS, mixed_table())


@pytest.fixture(scope="module")
def joined():
    return fit_joined()


@pytest.fixture
def dataset(tmp_path):
    return dataset_from_files(written(tmp_path), label="click", split=EIGHTY)
