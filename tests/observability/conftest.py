"""Prometheus for the tests of what it is given."""

import pytest

from tests.observability.prometheus import Programs, programs


@pytest.fixture(scope="session")
def prometheus() -> Programs:
    return programs()
