"""The fixture under test, read from its file."""

import pytest

from support.golden import Fixture, load


@pytest.fixture
def fixture(request: pytest.FixtureRequest) -> Fixture:
    """Return the numeric fixture of the parametrised path."""
    return load(request.param)
