import json
from pathlib import Path

import pytest

from dgs_lightning.errors import InputError
from dgs_lightning.models.hub import download, find_model, has_weights, is_hub_id, licence_of, read_config


def test_a_hub_id_is_an_owner_and_a_model_and_no_path_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert [is_hub_id(name) for name in ("owner/model", "here/model", "model", "/a/b", "a/b/c")] == [True, *[False] * 4]


def test_a_model_is_found_by_its_path_or_not_at_all_without_network(tmp_path: Path) -> None:
    assert find_model(str(tmp_path), ()) == tmp_path
    assert find_model(str(tmp_path / "missing"), ()) is None
    assert find_model("someone/nothing", ("*.json",)) is None


def test_a_model_that_the_hub_does_not_give_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="DiT 'a/b': found neither a file or folder here nor a model that the hub"):
        download("a/b", ("*",), "DiT 'a/b'")
    with pytest.raises(InputError, match="no such file or folder"):
        download("/no/path", ("*",), "DiT '/no/path'")


def test_weights_are_files_that_are_not_empty(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    file = tmp_path / "transformer" / "weights.safetensors"
    file.parent.mkdir()
    file.touch()
    assert not has_weights(tmp_path)
    file.write_bytes(b"weights")
    assert has_weights(tmp_path)
    assert has_weights(file)
    assert read_config(tmp_path) == {"a": 1}
    (tmp_path / "config.json").write_text("[")
    assert read_config(tmp_path) == read_config(tmp_path / "none") == read_config(None) == {}


def test_the_licence_of_a_published_model_is_known() -> None:
    assert licence_of("facebook/DiT-XL-2-256") == "CC BY-NC 4.0: not for commercial use"
    assert licence_of("someone/else") is None
