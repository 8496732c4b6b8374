import shlex
from pathlib import Path
from typing import Any, Literal

import diffusers
import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dgs_lightning.callbacks.trajectory_recorder import TrajectoryRecorder
from dgs_lightning.commands.cli import check, execute
from dgs_lightning.configs import ROOT
from dgs_lightning.data.cards import read_card
from dgs_lightning.data.classes import CLASS_LISTS
from dgs_lightning.data.folders import read_set
from dgs_lightning.data.records import ImageRecord
from dgs_lightning.datamodules.requests import RequestBatch, RequestDataModule
from dgs_lightning.diffusion.guidance import StepState
from dgs_lightning.errors import InputError
from dgs_lightning.models.dit.formats import save_dit
from dgs_lightning.models.dit.network import DiT, DiTConfig
from dgs_lightning.runs.layout import TRAJECTORIES
from dgs_lightning.tasks.generation import GenerationTask, to_pixels

QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    model = DiT(DiTConfig(4, 2, in_channels=3, hidden_size=16, depth=1, num_heads=2), ["cat", "dog"])
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("dit")
    save_dit(model, folder, ema={name: torch.zeros_like(p) for name, p in model.named_parameters()})
    return str(folder)


def batch_of(*images: tuple[str, int]) -> RequestBatch:
    return RequestBatch(0, [ImageRecord(f"{label}/{seed:05d}.png", label, seed=seed) for label, seed in images])


def test_the_batch_is_turned_into_8_bit_images(dit: str) -> None:
    images = GenerationTask(dit, weights="raw", steps=3).predict_step(batch_of(("cat", 1), ("dog", 2)), 0)
    assert (images.shape, images.dtype) == ((2, 3, 4, 4), torch.uint8)


def test_a_seed_gives_the_same_latent_in_any_batch(dit: str) -> None:
    task = GenerationTask(dit, weights="raw", steps=3)
    together = task.generate(batch_of(("cat", 1), ("dog", 2), ("cat", 3)))
    alone = task.generate(batch_of(("dog", 2)))
    torch.testing.assert_close(alone, together[1:2], rtol=1e-4, atol=1e-4)


def test_label_weights_and_guidance_scale_matter(dit: str) -> None:
    plain = GenerationTask(dit, weights="raw", steps=3).generate(batch_of(("cat", 1)))
    for changed in (
        GenerationTask(dit, weights="raw", steps=3).generate(batch_of(("dog", 1))),
        GenerationTask(dit, weights="ema", steps=3).generate(batch_of(("cat", 1))),
        GenerationTask(dit, weights="raw", steps=3, guidance_scale=1.0).generate(batch_of(("cat", 1))),
        GenerationTask(dit, weights="raw", steps=3, guided_channels=1).generate(batch_of(("cat", 1))),
        GenerationTask(dit, weights="raw", steps=3, sampler="ddim").generate(batch_of(("cat", 1))),
    ):
        assert (changed - plain).abs().max() > 1e-2


def test_a_guidance_shifts_the_images(dit: str) -> None:
    def brighten(state: StepState) -> Tensor:
        return torch.ones_like(state.latent)

    task = GenerationTask(dit, weights="raw", steps=1)
    plain = task.generate(batch_of(("cat", 1)))
    task.guide(lambda batch: brighten, {"class": "brighten"})
    torch.testing.assert_close(task.generate(batch_of(("cat", 1))), plain + 1)
    assert task.settings()["guidance"] == {"class": "brighten"}


def test_latents_are_decoded_a_few_at_a_time(dit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, sizes = GenerationTask(dit, decode_batch=2), list[int]()

    def decode(latents: Tensor) -> Tensor:
        sizes.append(len(latents))
        return latents + 1

    monkeypatch.setattr(task.codec, "decode", decode)
    latents = torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(task.decode(latents), latents + 1)
    assert sizes == [2, 2, 1]


def test_half_precision_runs_the_network_in_it_and_the_loop_in_float32(dit: str) -> None:
    task = GenerationTask(dit, weights="raw", steps=3)
    full = task.generate(batch_of(("cat", 1)))
    half = task.bfloat16().generate(batch_of(("cat", 1)))
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.2 * full.abs().max()


def test_the_trainers_half_precision_changes_neither_the_noise_nor_the_form_of_trajectories(
    dit: str, tmp_path: Path
) -> None:
    def images(precision: Literal["32-true", "bf16-true"]) -> Tensor:
        folder = tmp_path / precision
        trainer = L.Trainer(
            accelerator="cpu", precision=precision, default_root_dir=folder, callbacks=[TrajectoryRecorder()], **QUIET
        )
        task = GenerationTask(dit, weights="raw", steps=3, guidance_scale=2.0)
        (made,) = trainer.predict(task, RequestDataModule(images_per_class=4))  # type: ignore[misc]
        assert load_file(folder / TRAJECTORIES)["predictions"].dtype == torch.float32
        return made.int()  # type: ignore[no-any-return, union-attr]

    full, half = images("32-true"), images("bf16-true")
    difference = (full - half).abs().float().mean()
    assert 0 < difference < (full - half.roll(1, 0)).abs().float().mean() / 10


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_images(dit: str) -> None:
    plain, compiled = (GenerationTask(dit, weights="raw", steps=2, compile=compile) for compile in (False, True))
    images = batch_of(("cat", 1), ("dog", 2))
    torch.testing.assert_close(compiled.generate(images), plain.generate(images), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("image", "pixel"), [(-2.0, 0), (-1.0, 0), (0.0, 128), (0.999, 255), (3.0, 255)])
def test_pixels_are_rounded_and_clipped(image: float, pixel: int) -> None:
    assert to_pixels(torch.tensor([image])).tolist() == [pixel]


@pytest.mark.parametrize(
    "refusal",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_running_out_of_memory_says_what_to_lower(
    dit: str, monkeypatch: pytest.MonkeyPatch, refusal: RuntimeError
) -> None:
    def full(*_: object) -> Tensor:
        raise refusal

    task = GenerationTask(dit)
    monkeypatch.setattr(task.model, "forward", full)
    with pytest.raises(InputError, match=r"batch_size 1: found out of memory.*Lower data.batch_size"):
        task.predict_step(batch_of(("cat", 1)), 0)


def test_the_largest_batch_is_the_largest_power_of_two_that_fits(dit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = GenerationTask(dit)
    assert task.largest_batch() == 64
    forward = task.model.forward

    def small(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if len(x) > 2 * 11:  # both branches
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(x, t, y)

    monkeypatch.setattr(task.model, "forward", small)
    monkeypatch.setattr(GenerationTask, "on_cpu", False)
    assert (task.largest_batch(), task.largest_batch(most=4)) == (8, 4)


@pytest.mark.parametrize("setting", ["steps", "decode_batch"])
def test_a_number_below_one_is_refused(dit: str, setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting}: found 0"):
        GenerationTask(dit, **{setting: 0})  # type: ignore[arg-type]


def test_a_codec_of_another_latent_space_is_refused(dit: str, tmp_path: Path) -> None:
    autoencoder: Any = diffusers.AutoencoderTiny
    one = {"num_encoder_blocks": [1], "num_decoder_blocks": [1]}
    autoencoder(**one, encoder_block_out_channels=[8], decoder_block_out_channels=[8]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="found 4 latent channels, expected 3"):
        GenerationTask(dit, codec=str(tmp_path))


@pytest.mark.parametrize("config", sorted((ROOT / "generate").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_command_at_the_top_of_a_shipped_config_is_valid(config: Path) -> None:
    program, command, *args = shlex.split(config.read_text().splitlines()[0].removeprefix("# "))
    assert (program, command) == ("dgs", "predict")
    assert f"generate/{config.name}" in args
    check(command, args)


@pytest.mark.parametrize("overlay", ["mgd3", "dag"])
@pytest.mark.parametrize("base", ["digits", "imagewoof128", *(f"dit of {name}" for name in CLASS_LISTS)])
def test_guidance_goes_on_top_of_every_data_set(base: str, overlay: str) -> None:
    config, _, labels = base.partition(" of ")
    of_labels = [f"--data.labels={labels}"] if labels else ["--model.dit=RUN"]
    writer = ["--trainer.callbacks+=ImageWriter", "--trainer.callbacks.output=FOLDER"]
    check("predict", [f"--config=generate/{config}.yaml", f"--config=generate/{overlay}.yaml", *of_labels, *writer])


def test_weights_are_told_apart_by_their_labels_and_heads(dit: str, tmp_path: Path) -> None:
    model = GenerationTask(dit, weights="raw").model
    torch.save(model.state_dict(), tmp_path / "dit.pt")
    tasks = [GenerationTask(str(tmp_path / "dit.pt"), num_heads=heads) for heads in (1, 2)]
    assert len({task.settings()["dit"] for task in (GenerationTask(dit, weights="raw"), *tasks)}) == 3


def test_the_command_line_generates_with_a_guidance_of_the_users(
    dit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from dgs_lightning import GuidanceCallback\n\n\n"
        "class TowardsWhite(GuidanceCallback):\n"
        "    def __init__(self, scale: float = 0.1) -> None:\n"
        "        self.scale = scale\n\n"
        "    def __call__(self, state):\n"
        "        return self.scale * state.sigma * (1 - state.pred_x0)\n"
    )
    (tmp_path / "guided.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: mine.TowardsWhite\n      init_args: {scale: 0.2}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = ["--model.steps=2", "--data.images_per_class=2", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    output = [f"--trainer.default_root_dir={tmp_path}", "--trainer.callbacks+=ImageWriter"]
    output.append(f"--trainer.callbacks.output={tmp_path / 'set'}")
    configs = ["--config", "generate/digits.yaml", "--config", str(tmp_path / "guided.yaml")]
    execute("predict", [*configs, f"--model.dit={dit}", *settings, *output])
    assert len(read_set(tmp_path / "set")) == 4
    assert read_card(tmp_path / "set")["settings"]["model"]["guidance"] == {"class": "TowardsWhite", "scale": 0.2}
