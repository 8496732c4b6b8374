"""A DiT that has learned something, for callbacks that watch it generate."""

from pathlib import Path

import pytest
from tests.trained_dit import train_dit

in_two_processes = pytest.mark.skipif("torch.cuda.is_initialized()", reason="processes that use CUDA cannot be forked")


@pytest.fixture(scope="session")
def dit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a DiT that has learned three greys."""
    return train_dit(tmp_path_factory.mktemp("dit"))
