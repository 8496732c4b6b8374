from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models import squeezenet1_1

from dgs_lightning.data.classes import class_list
from dgs_lightning.errors import InputError
from dgs_lightning.models.classifier import ClassifierConfig, save_classifier
from dgs_lightning.models.estimator import EstimatorSource, Teacher, load_estimator, why_estimator_missing
from dgs_lightning.models.features import build_features

OWN = ClassifierConfig("convnet1", ("b", "a"), image_size=4, channels=1, mean=(0.5,), std=(0.25,), width=4)
GREY = Image.new("RGB", (50, 40), (51, 51, 51))  # 0.2 of white


def test_a_classifier_of_ones_own_has_its_labels_and_its_preprocessing(tmp_path: Path) -> None:
    network = OWN.build()
    save_classifier(network, OWN, tmp_path)
    estimator = load_estimator(str(tmp_path))
    assert estimator.labels == ("b", "a")
    images = estimator.preprocess(GREY)[None]
    assert torch.allclose(images, torch.full((1, 1, 4, 4), (0.2 - 0.5) / 0.25))
    assert torch.equal(estimator(images), network.eval()(images))


def test_the_identity_changes_with_the_weights_alone(tmp_path: Path) -> None:
    network = OWN.build()
    save_classifier(network, OWN, tmp_path / "one")
    save_classifier(network, OWN, tmp_path / "same")
    save_classifier(OWN.build(), OWN, tmp_path / "other")
    one, same, other = (load_estimator(str(tmp_path / name)).identity for name in ("one", "same", "other"))
    assert one == same != other
    assert one.startswith("convnet1@")


def test_labels_and_place_of_an_estimator_are_known_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier(OWN.build(), OWN, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    own = EstimatorSource.of(str(tmp_path))
    assert (own.labels(), own.local) == (["b", "a"], str(tmp_path))
    assert EstimatorSource.of("timm:resnet50", "file.pt").local == "file.pt"
    published = EstimatorSource.of("torchvision:resnet50")
    assert published.labels() == class_list("imagenet1k")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    here, command = published.in_cache()
    assert not here
    assert "resnet50-0676ba61.pth" in command
    for name in ("torchvision:resnet5000", "timm:resnet5000", "timm:mobilenetv4_conv_medium.e250_r384_in12k"):
        with pytest.raises(ValueError, match=r"resnet5000|no weights"):
            EstimatorSource.of(name).in_cache()


def test_a_torchvision_network_has_imagenets_labels_and_its_own_preprocessing(tmp_path: Path) -> None:
    save_file(squeezenet1_1().state_dict(), tmp_path / "weights.safetensors")
    estimator = load_estimator("torchvision:squeezenet1_1", str(tmp_path / "weights.safetensors"))
    image = estimator.preprocess(GREY)
    assert image.shape == (3, 224, 224)
    assert torch.allclose(
        image[:, 0, 0], (0.2 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    )
    assert estimator.labels == class_list("imagenet1k")
    assert estimator(image[None]).shape == (1, 1000)


def test_a_timm_network_has_imagenets_labels_and_its_own_preprocessing(tmp_path: Path) -> None:
    network = timm.create_model("test_vit")
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    estimator = load_estimator("timm:test_vit", str(tmp_path / "weights.safetensors"))
    image = estimator.preprocess(GREY)
    assert image.shape == (3, 160, 160)
    assert torch.allclose(image, torch.full_like(image, (0.2 - 0.5) / 0.5), atol=1e-6)
    assert estimator.labels == class_list("imagenet1k")
    assert torch.equal(estimator(image[None]), network.eval()(image[None]))


def test_an_estimator_stays_frozen_and_in_evaluation_mode(tmp_path: Path) -> None:
    save_classifier(OWN.build(), OWN, tmp_path)
    estimator = load_estimator(str(tmp_path)).train()
    assert not estimator.network.training
    assert not any(parameter.requires_grad for parameter in estimator.parameters())


def test_a_gpu_computes_difficulties_and_features_in_32_bit_and_soft_labels_like_the_student(tmp_path: Path) -> None:
    save_classifier(OWN.build(), OWN, tmp_path)
    teacher, seen = Teacher(str(tmp_path), None, OWN), []
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, images = convolutions.fp32_precision, torch.rand(1, 1, 4, 4)
    first = next(module for module in teacher.network.network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda *_: seen.append(convolutions.fp32_precision))
    for function in (teacher.network, teacher.network.features, teacher.all_logits, teacher):
        function(images)
    assert seen == ["ieee", "ieee", "ieee", before]
    assert convolutions.fp32_precision == before != "ieee"


@pytest.mark.parametrize(
    "name", ["resnet50", "timm:", "timm:no_such_net", "torchvision:no_such_net", "hub:x/y", "no/such/folder", ""]
)
def test_names_of_nothing_are_input_errors(name: str) -> None:
    with pytest.raises(InputError):
        load_estimator(name, "none.safetensors")


def test_unknown_weights_of_torchvision_are_told_with_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"no weights IMAGENET1K_V9, only IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"):
        load_estimator("torchvision:resnet50", "IMAGENET1K_V9")
    with pytest.raises(InputError, match=r"no weights IMAGENET1K_V1, only IMAGENET1K_SWAG"):
        load_estimator("torchvision:vit_h_14")


def test_a_network_of_other_classes_than_imagenets_is_refused() -> None:
    with pytest.raises(InputError, match="with 11821 classes"):
        load_estimator("timm:mobilenetv4_conv_medium.e250_r384_in12k")


def test_weights_of_another_network_are_an_input_error(tmp_path: Path) -> None:
    save_classifier(OWN.build(), OWN, tmp_path)
    with pytest.raises(InputError, match="tensors missing"):
        load_estimator("torchvision:squeezenet1_1", str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json"):
        load_estimator(str(tmp_path))


def test_estimators_of_other_inputs_do_not_share_their_preprocessing(tmp_path: Path) -> None:
    for name, config in (("a", OWN), ("b", OWN), ("c", replace(OWN, mean=(0.1,)))):
        save_classifier(config.build(), config, tmp_path / name)
    a, b, c = (load_estimator(str(tmp_path / name)).preprocess for name in "abc")
    assert repr(a) == repr(b) != repr(c)


def write_head_for_other_classes(folder: Path, name: str) -> str:
    network: nn.Module = OWN.build()
    if name == "timm:test_resnet":
        network = timm.create_model("test_resnet", num_classes=7)
    elif name == "torchvision:squeezenet1_1":
        network = squeezenet1_1(num_classes=7)
    save_classifier(network, replace(OWN, labels=("a", "b", "c")), folder)
    return str(folder / "model.safetensors")


@pytest.mark.parametrize("name", ["timm:test_resnet", "torchvision:squeezenet1_1", "folder"])
def test_weights_with_a_last_layer_for_other_classes_are_no_estimator(name: str, tmp_path: Path) -> None:
    weights = write_head_for_other_classes(tmp_path, name)
    theirs, ours = (2, 3) if name == "folder" else (7, 1000)
    for load in (load_estimator, build_features):
        with pytest.raises(InputError, match=f"found a last layer for {theirs} classes, expected one for {ours}"):
            load(str(tmp_path) if name == "folder" else name, weights)


def test_an_estimator_in_a_wrapping_has_the_identity_of_its_weights(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 1}, tmp_path / "a.ckpt")
    plain, wrapped = (load_estimator("timm:test_resnet", str(tmp_path / name)) for name in ("plain.pth", "a.ckpt"))
    assert plain.identity == wrapped.identity


def test_a_tag_that_timm_lacks_is_one_clear_error() -> None:
    error = why_estimator_missing("timm:resnet10t.nothing", None)
    assert error is not None
    assert "resnet10t with weights 'nothing', of which timm has c3_in1k" in str(error)
    for load in (load_estimator, build_features):
        with pytest.raises(InputError, match=r"weights 'nothing', of which timm has c3_in1k.* Correct the tag"):
            load("timm:resnet10t.nothing")


def test_weights_that_cannot_be_fetched_come_with_the_command_and_the_setting_for_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(InputError, match=r"curl .*resnet18-f37072fd\.pth', or set estimator_weights=FILE"):
        load_estimator("torchvision:resnet18")


def test_a_teacher_of_other_classes_is_refused_before_its_weights_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgs_lightning.models.estimator.load_estimator", lambda *_: pytest.fail("fetched"))
    with pytest.raises(InputError, match=r"teacher torchvision:resnet18: found 2 missing labels \(a, b\)"):
        Teacher("torchvision:resnet18", None, OWN)
