import pytest

from dynens.data.names import is_id_name


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        *((name, True) for name in ("shop_id", "userId", "AdvertiserID", "KeywordIDs", "adKey")),
        *((name, True) for name in ("id", "ID", "deviceUUID", "countryCode", "ZipCode", "ad id")),
        *((name, False) for name in ("paid", "Valid", "PAID", "grid", "BarCodes", "hours", "")),
    ],
)
def test_ids_by_their_names(name, is_id):
    assert is_id_name(name) == is_id
