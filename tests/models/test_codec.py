import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from dgs_lightning.errors import InputError
from dgs_lightning.models.codec import build_codec, keeps_variances, latent_shape

AutoencoderKL: Any = diffusers.AutoencoderKL
AutoencoderTiny: Any = diffusers.AutoencoderTiny
DiTTransformer2DModel: Any = diffusers.DiTTransformer2DModel
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def kl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kl")
    torch.manual_seed(0)
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    AutoencoderKL(**blocks, block_out_channels=[8, 8], norm_num_groups=4, scaling_factor=0.25).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).save_pretrained(folder)
    return folder


def test_pixels_are_their_own_latents_whatever_their_channels() -> None:
    codec = build_codec("pixels", channels=2)
    digits = torch.rand(3, 2, 8, 8)
    assert torch.equal(codec.encode(digits).mean, digits)
    assert codec.encode(digits).logvar is None
    assert torch.equal(codec.decode(digits), digits)
    assert codec.latent_shape(8) == (2, 8, 8)


def test_the_posterior_of_a_vae_is_scaled_by_its_own_factor(kl: Path) -> None:
    codec = build_codec(str(kl))
    expected = AutoencoderKL.from_pretrained(kl, low_cpu_mem_usage=False).encode(IMAGES).latent_dist
    posterior = codec.encode(IMAGES)
    assert posterior.logvar is not None
    torch.testing.assert_close(posterior.mean, 0.25 * expected.mean)
    torch.testing.assert_close(torch.exp(posterior.logvar / 2), 0.25 * expected.std)
    noise = torch.randn(expected.mean.shape)
    torch.testing.assert_close(posterior.sample(noise), 0.25 * (expected.mean + expected.std * noise))


def test_decoding_undoes_the_scale(kl: Path) -> None:
    latents = torch.randn(2, 4, 8, 8)
    expected = AutoencoderKL.from_pretrained(kl, low_cpu_mem_usage=False).decode(latents / 0.25).sample
    torch.testing.assert_close(build_codec(str(kl)).decode(latents), expected)


def test_a_tiny_autoencoder_has_no_posterior(tiny: Path) -> None:
    codec = build_codec(str(tiny))
    assert codec.encode(IMAGES).logvar is None
    assert tuple(codec.encode(IMAGES).mean.shape[1:]) == codec.latent_shape(16) == (4, 4, 4)


def test_the_form_of_the_latents_is_known_without_weights(kl: Path, tiny: Path, tmp_path: Path) -> None:
    for number, folder in enumerate((kl, tiny)):
        config = tmp_path / str(number) / "config.json"
        config.parent.mkdir()
        config.write_bytes((folder / "config.json").read_bytes())  # no weights beside it
        assert latent_shape(str(config.parent), 16, 3) == build_codec(str(folder)).latent_shape(16)
        assert keeps_variances(str(config.parent)) == (folder == kl)
    assert (latent_shape("pixels", 8, 1), keeps_variances("pixels")) == ((1, 8, 8), False)
    assert latent_shape("someone/nothing", 256, 3) == (4, 32, 32)  # Stable Diffusion's


def test_a_codec_is_frozen_and_stays_in_evaluation_mode(kl: Path) -> None:
    codec = build_codec(str(kl)).train()
    assert not any(module.training for module in codec.modules())
    assert not any(parameter.requires_grad for parameter in codec.parameters())


def test_the_identity_follows_the_weights_and_not_the_place(kl: Path, tmp_path: Path) -> None:
    original = AutoencoderKL.from_pretrained(kl, low_cpu_mem_usage=False)
    original.save_pretrained(tmp_path / "moved")
    with torch.no_grad():
        original.encoder.conv_in.bias[0] += 1
    original.save_pretrained(tmp_path / "changed")
    assert build_codec(str(tmp_path / "moved")).identity() == build_codec(str(kl)).identity()
    assert build_codec(str(tmp_path / "changed")).identity() != build_codec(str(kl)).identity()


def test_an_image_size_that_does_not_fit_is_an_error_with_the_next_one_that_does(kl: Path) -> None:
    with pytest.raises(InputError, match=r"found 15, expected a multiple of .* factor 2\. Resize to 16"):
        build_codec(str(kl)).encode(IMAGES[..., :15, :15])


def test_something_other_than_an_autoencoder_is_refused(tmp_path: Path) -> None:
    DiTTransformer2DModel(num_layers=1, num_attention_heads=1, attention_head_dim=4, sample_size=4).save_pretrained(
        tmp_path
    )
    with pytest.raises(InputError, match="found DiTTransformer2DModel, expected AutoencoderKL or AutoencoderTiny"):
        build_codec(str(tmp_path))


def test_pickled_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "diffusion_pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny"}))
    with pytest.raises(InputError, match="safetensors"):
        build_codec(str(tmp_path))


def test_a_folder_that_is_not_there_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="Give a folder, or go online once"):
        build_codec(str(tmp_path / "missing"))


def test_an_autoencoder_that_lacks_a_tensor_is_refused(kl: Path, tmp_path: Path) -> None:
    shutil.copytree(kl, tmp_path / "cut")
    file = tmp_path / "cut" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state["decoder.conv_out.bias"]
    save_file(state, file)
    with pytest.raises(InputError, match=r"1 tensors missing \(decoder\.conv_out\.bias\)"):
        build_codec(str(tmp_path / "cut"))
