"""What all tests share: where the golden values are."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden values: the environment variable ``DGS_GOLDEN``, or ``tests/golden``."""
    return Path(os.environ.get("DGS_GOLDEN", Path(__file__).parent / "golden"))
