import os

import pytest


@pytest.fixture
def real_data() -> str:
    """The folder with the real data sets, or a skip that says what is missing."""
    folder = os.environ.get("FED_GSWGAN_DATA", "")
    if not folder:
        pytest.skip("FED_GSWGAN_DATA is not set: no real data to read")
    return folder
