import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dgs_lightning.errors import InputError
from dgs_lightning.models.convnet import ConvNet
from dgs_lightning.models.hub import why_missing
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


NETWORK = ConvNet(5, image_size=8, depth=2, width=4)
LOSS = {"criterion.weight": torch.ones(5)}


def behind(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in NETWORK.state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        behind("module."),
        behind("model."),
        behind("_orig_mod.module."),
        {"state_dict": behind("")},
        {"model": behind("module."), "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {
            "state_dict": behind("network.") | LOSS,
            "pytorch-lightning_version": "2.4.0",
            "hyper_parameters": {"lr": 0.1, "names": ["a", "b"]},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
            "callbacks": {},
        },
    ],
    ids=["module", "model", "compiled", "state_dict", "training", "lightning"],
)
def test_weights_in_a_common_wrapping_are_those_of_the_network(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.ckpt")
    loaded = ConvNet(5, image_size=8, depth=2, width=4)
    fill(loaded, read_weights(tmp_path / "weights.ckpt"), "weights.ckpt")
    assert hash_state(loaded.state_dict()) == hash_state(NETWORK.state_dict())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (behind("student.") | behind("teacher."), r"2 networks \(student\., teacher\.\)"),
        ({"state_dict": behind(""), "state_dict_ema": behind("")}, r"2 sets of weights \(state_dict, state_dict_ema\)"),
        ({"epoch": 3, "loss": 0.5}, "a checkpoint of dict"),
        ({"module." + name: value for name, value in list(behind("").items())[1:]}, "missing, unknown"),
    ],
)
def test_a_file_without_the_one_set_of_weights_is_refused(content: dict[str, Any], says: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=says):
        fill(NETWORK, read_weights(tmp_path / "weights.pt"), "weights.pt")


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize(
    ("start", "says"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a git-LFS pointer .*git lfs pull"),
        ("\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "a web page in place of the file"),
        ("<HTML><head></head></HTML>", "a web page in place of the file"),
    ],
)
def test_what_a_download_left_in_place_of_weights_is_named(name: str, start: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(start)
    with pytest.raises(InputError, match=says):
        read_weights(tmp_path / name)
    error = why_missing("estimator", str(tmp_path / name), ())
    assert error is not None
    assert re.search(says, str(error))


@pytest.mark.filterwarnings("ignore")  # torch announces the end of TorchScript
def test_a_program_of_torchscript_is_named(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "weights.pt"))  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match="more in it than a plain checkpoint"):
        read_weights(tmp_path / "weights.pt")
