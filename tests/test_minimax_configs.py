from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from dgs_lightning.commands.cli import check, execute
from dgs_lightning.configs import ROOT, expand, load_config
from dgs_lightning.data.latents import LatentCache
from dgs_lightning.experiment.settings import load_experiment
from dgs_lightning.models.dit.formats import load_dit

CONFIGS = sorted(ROOT.glob("minimax/*.yaml"))
OVERLAYS = sorted(ROOT.glob("trainer/*.yaml"))
BF16 = ["generate.config=[generate/dit.yaml, generate/bf16.yaml]"]


def command_of(config: Path) -> list[str]:
    """The words of the command in a config's first line, without the program's name."""
    words = config.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split()
    return words[words.index("dgs") + 1 :]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_opens_with_the_command_that_runs_it(config: Path) -> None:
    command, *arguments = command_of(config)
    assert f"minimax/{config.name}" in arguments
    check(command, arguments)


@pytest.mark.parametrize(
    "config", [path for path in CONFIGS if not path.stem.startswith(("encode", "invert"))], ids=lambda path: path.stem
)
def test_every_training_of_a_dit_shows_samples_in_the_latents_of_its_codec(config: Path) -> None:
    settings = load_config(str(config))
    callbacks = {entry["class_path"]: entry.get("init_args", {}) for entry in settings["trainer"]["callbacks"]}
    data = config.stem.removeprefix("pretrain_")
    pixels = dict.fromkeys(("own_images", "digits", "fashion_mnist"), "encode_digits")
    encoding = {**pixels, "imagewoof128": "encode_imagewoof128"}
    encoder = load_config(f"minimax/{encoding.get(data, 'encode')}.yaml")["model"]["init_args"]["codec"]
    assert callbacks["SampleGrid"].get("codec", "pixels") == encoder


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_goes_on_top_of_a_training_and_of_a_generation(overlay: Path) -> None:
    check("fit", ["--config", "minimax/imagewoof.yaml", "--config", str(overlay), "--data.cache", "CACHE"])
    check("predict", ["--config", "generate/dit.yaml", "--config", str(overlay)])


@pytest.mark.parametrize("name", ["imagenet", "table1", "table7", "own_images_dit"])
def test_published_images_are_generated_in_32_bit_and_in_bfloat16_where_it_is_asked_for(name: str) -> None:
    for changes, precision in (([], "32-true"), (BF16, "bf16-true")):
        assert expand(load_experiment(name, changes).generate)["trainer"]["precision"] == precision


def test_own_images_are_encoded_learnt_and_fine_tuned_by_the_shipped_configs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for number in range(6):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    cache, pretrained = tmp_path / "latents", tmp_path / "pretrain"
    writer = ["--trainer.callbacks=LatentWriter", f"--trainer.callbacks.output={cache}"]
    execute("predict", ["--config=minimax/encode_digits.yaml", f"--data.predict={tmp_path / 'images'}", *writer])
    assert LatentCache(cache).settings.shape == (3, 32, 32)
    assert "3.69e-05 GB of latents of 6 images to write" in capsys.readouterr().err  # 6 x 3 x 32 x 32 x 2 bytes
    short = [f"--data.cache={cache}", "--trainer.max_steps=2", "--config=trainer/cpu.yaml"]
    scratch = ["--config=minimax/pretrain_own_images.yaml", f"--trainer.default_root_dir={pretrained}"]
    execute("fit", [*scratch, *short])
    fine_tuning = ["--config=minimax/own_images.yaml", f"--model.dit={pretrained / 'weights'}"]
    execute("fit", [*fine_tuning, f"--trainer.default_root_dir={tmp_path / 'tuned'}", *short])
    assert load_dit(str(tmp_path / "tuned" / "weights")).labels == ("a", "b")
    assert len(load_file(tmp_path / "tuned" / "weights" / "model.safetensors")) < len(
        load_file(pretrained / "weights" / "model.safetensors")
    )
