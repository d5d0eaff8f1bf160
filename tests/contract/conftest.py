"""One copy of the checkout with the toys for all tests of the contract."""

from __future__ import annotations

import pytest
from scratch import Scratch, made


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """The copy."""
    return made(tmp_path_factory.mktemp("scratch"))
