import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dgs_lightning.errors import InputError
from dgs_lightning.models.convnet import ConvNet
from dgs_lightning.models.weights import fill, hash_state, read_weights


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="missing, unknown or of another shape"):
        fill(ConvNet(5, image_size=8, depth=2), ConvNet(5, image_size=8, depth=3).state_dict(), "other")
    with pytest.raises(InputError, match="of another shape"):
        fill(ConvNet(5, image_size=8, depth=2), ConvNet(5, image_size=16, depth=2).state_dict(), "larger")


def test_a_pickle_is_refused_and_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    for file in ("weights.pt", "cut.safetensors", "missing.pt"):
        with pytest.raises(InputError, match=file):
            read_weights(tmp_path / file)
    assert not (tmp_path / "executed").exists()


def test_the_hash_of_weights_does_not_depend_on_the_file_that_they_came_from(tmp_path: Path) -> None:
    state = ConvNet(5, image_size=8, depth=2, width=4).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(dict(reversed(state.items())), tmp_path / "weights.pt")
    hashes = {hash_state(read_weights(tmp_path / name)) for name in ("weights.safetensors", "weights.pt")}
    assert hashes == {hash_state(state)}
    state["classifier.bias"] += 1
    assert hash_state(state) not in hashes
