"""A lab for the tests of a file, with a reason in one sentence where there can be none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab import Lab, LabUnavailable


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """An internet with nobody on it."""
    try:
        made = Lab(tmp_path_factory.mktemp("lab"))
    except LabUnavailable as error:
        pytest.fail(str(error), pytrace=False)
    with made:
        yield made
