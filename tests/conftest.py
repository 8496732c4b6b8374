"""What all tests share: where the golden values are."""

import os

# One thread for each test process, before torch is imported: forked processes would miss the other threads and hang.
os.environ["OMP_NUM_THREADS"] = "1"

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden values: the environment variable ``DGS_GOLDEN``, or ``tests/golden``."""
    return Path(os.environ.get("DGS_GOLDEN", Path(__file__).parent / "golden"))
