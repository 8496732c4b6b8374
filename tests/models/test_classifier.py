import json
from pathlib import Path

import pytest
import torch

from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig, load_classifier, save_classifier

CONFIG = ClassifierConfig("convnet2", ("n02086240", "köter"), 8, 1, (0.5,), (0.25,), width=4)


def test_a_saved_classifier_comes_back_the_same_in_evaluation_mode(tmp_path: Path) -> None:
    network = CONFIG.build()
    save_classifier(network, CONFIG, tmp_path / "weights")
    loaded, config = load_classifier(tmp_path / "weights")
    assert config == CONFIG
    assert not loaded.training
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(loaded(images), network(images))
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["config.json", "model.safetensors"]


def test_the_settings_say_what_they_are_in_plain_json(tmp_path: Path) -> None:
    save_classifier(CONFIG.build(), CONFIG, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "format": "dgs-lightning/classifier",
        "network": "convnet2",
        "labels": ["n02086240", "köter"],
        "image_size": 8,
        "channels": 1,
        "mean": [0.5],
        "std": [0.25],
        "width": 4,
        "folds": None,
        "fold": None,
    }


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}', '{"format": "dgs-lightning/classifier"}'])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_classifier(tmp_path)


def test_weights_of_other_settings_are_refused(tmp_path: Path) -> None:
    save_classifier(CONFIG.build(), CONFIG, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "network": "convnet3"}))
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_classifier(tmp_path)


def test_a_classifier_that_is_half_replaced_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    config = ClassifierConfig("convnet1", ("a", "b"), 4, 1, (0.5,), (0.5,), width=2)
    save_classifier(config.build(), config, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("dgs_lightning.models.classifier.write_tensors", fail)
        with pytest.raises(KeyboardInterrupt):
            save_classifier(config.build(), config, tmp_path)
    with pytest.raises(InputError, match=r"config\.json: found no such file"):
        load_classifier(tmp_path)
    save_classifier(config.build(), config, tmp_path)
    load_classifier(tmp_path)
