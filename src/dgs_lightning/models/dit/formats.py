"""Reading and writing of DiT weights: diffusers folders, released checkpoints, and this project's own folders."""

import argparse
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dgs_lightning.data.classes import class_list
from dgs_lightning.documents.files import read_json
from dgs_lightning.errors import InputError
from dgs_lightning.files import write_json, write_tensors
from dgs_lightning.models.dit import diffusers
from dgs_lightning.models.dit.difffit import add_scales, merge_difffit
from dgs_lightning.models.dit.diffusers import State
from dgs_lightning.models.dit.network import DiT, DiTConfig, default_labels, known_heads
from dgs_lightning.models.hub import TRANSFORMER, download, find_model
from dgs_lightning.models.weights import as_state, hash_state, read_file, without_prefix

FORMAT = "dgs-lightning/dit"
PUBLISHED_LICENCE = "DiT weights: CC BY-NC 4.0"
PUBLISHED = "facebook/DiT-XL-2-"  # hub id of the published weights, without the size of the images
_CONFIG = "config.json"
_BESIDE = "dgs.json"  # beside an exported transformer: the labels and frequencies, which diffusers' config lacks
_ALL_HAVE = ("pos_embed", "x_embedder.proj.weight")  # tensors of every DiT, by their original names
Weights = Literal["ema", "raw"]


class _Kind(TypedDict, total=False):
    """What tells this project's settings of a DiT from those of diffusers."""

    format: str


class _Base(TypedDict):
    """The weights that a fine-tuned model starts from: their place, and the hash of those that it keeps."""

    source: str
    hash: str


class _OwnSettings(TypedDict):
    """The settings of a DiT in this project's own folder."""

    config: DiTConfig
    labels: list[str]
    licences: NotRequired[list[str]]
    base: _Base | None


class _Beside(TypedDict):
    """What the settings of diffusers lack."""

    frequencies: Literal["original", "diffusers"]
    labels: list[str]


def load_dit(
    source: str, *, weights: Weights = "ema", labels: Sequence[str] | None = None, num_heads: int | None = None
) -> DiT:
    """Load a DiT in float32 and evaluation mode. Code in a pickle is never executed.

    Args:
        source: A folder that :func:`save_dit` or diffusers wrote, the hub id of a diffusers model, or a file: the
            original DiT's ``.pt``, a released Minimax ``.pt``, or a ``.safetensors`` file with the original names.
        weights: ``ema`` for the moving average of the weights, if the source has one; ``raw`` for the weights.
        labels: The classes wanted. If the source does not name its classes, a list of the same length names them.
            Otherwise known labels keep their rows of the label table and new ones start as the null label's row.
        num_heads: Attention heads, which no file contains: needed for a file of a DiT that has no published size.

    Raises:
        InputError: If there is no such source, it has another architecture, or it would run code.
    """
    path = Path(source)
    names: Sequence[str] = ()
    own: dict[str, Any] = {}
    if path.is_file():
        content = read_file(path, [argparse.Namespace])
        if isinstance(content, dict) and ("ema" in content or "model" in content):  # a checkpoint of a training
            content = content.get("ema" if weights == "ema" and "ema" in content else "model")
        state = dict(without_prefix(as_state(content, path), _ALL_HAVE, path))
        config = _architecture(state, path, num_heads)
    else:
        path = path if path.is_dir() else download(source, TRANSFORMER, f"DiT {source!r}")
        config, names, own = _read_settings(path)
        state = _own_state(path, config, names, own, weights) if own else _diffusers_state(path, config)
    if not names and labels is not None and len(labels) == config.num_classes != 1000:
        names = labels
    model = _filled(config, names or default_labels(config.num_classes), state, path)
    model.licences = own.get("licences") or published_licences(config)
    if labels is not None and tuple(labels) != model.labels:
        model.relabel(labels)
    return model.eval()


def save_dit(
    model: DiT, folder: Path, *, ema: Mapping[str, Tensor] | None = None, base: str | os.PathLike[str] | None = None
) -> None:
    """Write a weights folder: ``config.json``, ``model.safetensors`` and, with ``ema``, ``ema.safetensors``.

    ``ema`` holds the moving averages of the parameters that are saved, by name. ``base`` is the folder, file or hub id
    that the frozen parameters were loaded from. With it, only the trainable parameters are saved. Each file is written
    atomically, and ``config.json`` last, as the sign that all is there.
    """
    (folder / _CONFIG).unlink(missing_ok=True)
    parameters = dict(model.named_parameters())
    own = {name: parameter for name, parameter in parameters.items() if base is None or parameter.requires_grad}
    frozen = {name: parameter for name, parameter in parameters.items() if name not in own}
    write_tensors(folder / "model.safetensors", own)
    if ema is not None:
        write_tensors(folder / "ema.safetensors", {name: ema[name] for name in own})
    source = None if base is None else os.path.relpath(base, folder) if os.path.exists(base) else str(base)
    start = source and {"source": source, "hash": hash_state(frozen)}
    own_settings = {"labels": model.labels, "licences": model.licences, "base": start}
    write_json(folder / _CONFIG, {"format": FORMAT, "config": asdict(model.config), **own_settings})


def export_diffusers(model: DiT, folder: Path, vae: str | None = None) -> None:
    """Write a folder that stock diffusers loads. DiffFit's scales are merged into the weights.

    ``folder/transformer`` is a ``DiTTransformer2DModel``. With ``vae``, the folder or hub id of an ``AutoencoderKL``,
    ``folder`` is a whole ``DiTPipeline``. The model itself is not changed.

    The timestep embedder of a model with the original frequencies, such as one fine-tuned from the published weights,
    is fitted to the frequencies of diffusers. A model that is too narrow for that is exported with a warning that its
    output in stock diffusers deviates; :func:`load_dit` reads it exactly.

    Raises:
        InputError: If a VAE is given for a model without 1,000 classes, which stock diffusers cannot run.
    """
    config = model.config
    if vae is not None and config.num_classes != 1000:
        found, expected = f"{config.num_classes} classes", "1000: stock diffusers hard-codes the null label 1000"
        remedy = "Export without a VAE and use the transformer"
        raise InputError.setting("export of a DiTPipeline", found, expected, remedy)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    merge_difffit(merged := _filled(config, model.labels, state, "model to export"))
    if config.frequencies == "original" and config.hidden_size >= diffusers.TIMESTEPS:
        merged.t_embedder = diffusers.with_diffusers_frequencies(merged.t_embedder)
        config = replace(config, frequencies="diffusers")
    elif config.frequencies == "original":
        spacings = "spaces the timestep frequencies by 1/127 of their range, not by 1/128 as this model's training did"
        warnings.warn(f"stock diffusers {spacings}, so that the model's output deviates there", stacklevel=2)
    transformer = folder / "transformer"
    tensors = diffusers.to_diffusers(merged.state_dict(), config)
    write_tensors(transformer / "diffusion_pytorch_model.safetensors", tensors)
    write_json(transformer / _CONFIG, diffusers.diffusers_settings(config))
    write_json(folder / _BESIDE, {"labels": model.labels, "frequencies": config.frequencies})
    if vae is not None:
        _save_pipeline(folder, vae, model.labels)


def _save_pipeline(folder: Path, vae: str, labels: Sequence[str]) -> None:
    """Complete an exported transformer to a ``DiTPipeline``."""
    stock: Any = import_module("diffusers")  # only here: it takes seconds
    stock.DiTPipeline(
        transformer=stock.DiTTransformer2DModel.from_pretrained(folder / "transformer"),
        vae=stock.AutoencoderKL.from_pretrained(vae),
        scheduler=stock.DDIMScheduler(clip_sample=False),
    ).save_pretrained(folder)
    index = read_json(folder / "model_index.json", dict[str, Any], "the index of a pipeline")
    write_json(folder / "model_index.json", index | {"id2label": dict(enumerate(labels))})


def dit_config(source: str) -> DiTConfig | None:
    """Architecture of a DiT's folder or hub id, without network access; none if its settings are not here."""
    if path := find_model(source, TRANSFORMER):
        with suppress(InputError):  # loading the model will raise it
            return _read_settings(path)[0]
    size = source.removeprefix(PUBLISHED)
    published = size != source and size.isdigit()
    return DiTConfig.named("DiT-XL/2", input_size=int(size) // 8, num_classes=1000) if published else None


def dit_labels(source: str) -> Sequence[str] | None:
    """Classes of a DiT that :func:`load_dit` would load, without network access; none if they are not known.

    They are known from the settings in a folder. 1,000 classes, also those of a safetensors file, are ImageNet's.
    """
    path = find_model(source, TRANSFORMER)
    with suppress(InputError):
        if path and (labels := _read_settings(path)[1]):
            return labels
    config = dit_config(source)
    count = config.num_classes if config else None
    if path and path.suffix == ".safetensors":
        table = "y_embedder.embedding_table.weight"
        with suppress(SafetensorError, OSError), safe_open(path, "pt") as tensors:
            count = tensors.get_slice(table).get_shape()[0] - 1 if table in tensors.keys() else None  # noqa: SIM118
    return class_list("imagenet1k") if count == 1000 else None


def _own_state(folder: Path, config: DiTConfig, labels: Sequence[str], own: dict[str, Any], weights: Weights) -> State:
    """State dict of one of this project's weights folders and of its base."""
    averaged = weights == "ema" and (folder / "ema.safetensors").is_file()
    state: State = read_file(folder / ("ema.safetensors" if averaged else "model.safetensors"))
    if base := own["base"]:
        _check_bases(folder)
        source = folder / base["source"]
        model = load_dit(str(source) if source.exists() else base["source"], labels=labels, num_heads=config.num_heads)
        frozen = {name: tensor for name, tensor in model.state_dict().items() if name not in state}
        if hash_state(frozen) != base["hash"]:
            where, expected = f"base {base['source']} of {folder}", "those that the fine-tuning started from"
            raise InputError.weights(where, "other weights", expected, "Restore the base")
        state |= frozen
    return state


def published_licences(config: DiTConfig) -> tuple[str, ...]:
    """Terms of the published DiT-XL/2 weights, known by their size and frequencies; none for other weights."""
    published = (config.hidden_size, config.depth, config.frequencies) == (1152, 28, "original")
    return (PUBLISHED_LICENCE,) if published else ()


def _architecture(state: State, where: Path, num_heads: int | None) -> DiTConfig:
    """Architecture of a DiT from the shapes in its state dict with the original names."""
    try:
        hidden, channels, patch, _ = state["x_embedder.proj.weight"].shape
        side = round(state["pos_embed"].shape[1] ** 0.5) * patch
        classes = len(state["y_embedder.embedding_table.weight"]) - 1
        learn_sigma = len(state["final_layer.linear.bias"]) // patch**2 == 2 * channels
        ratio = len(state["blocks.0.mlp.fc1.bias"]) / hidden
    except (KeyError, ValueError, IndexError) as error:  # a missing tensor, or one of another shape
        found = f"no {error.args[0]}" if isinstance(error, KeyError) else "tensors of other shapes"
        raise InputError.weights(where, found, "the state dict of a DiT", "Give a DiT's weights") from None
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    heads = num_heads or known_heads(hidden, depth)
    if heads is None:
        found = f"a DiT of width {hidden} and depth {depth}"
        raise InputError.weights(where, found, "a published size, or the number of attention heads", "Set num_heads")
    shape = (side, classes, channels, patch, hidden, depth, heads)
    return DiTConfig(*shape, mlp_ratio=ratio, learn_sigma=learn_sigma, frequencies="original")


def _diffusers_state(folder: Path, config: DiTConfig) -> State:
    """State dict, with the original names, of a ``DiTTransformer2DModel`` or of the one in a ``DiTPipeline``."""
    pattern = re.compile(r"diffusion_pytorch_model(-.*)?\.(safetensors|bin)")
    state: State = {}
    files = sorted(file for file in _transformer(folder).iterdir() if pattern.fullmatch(file.name))
    for file in [file for file in files if file.suffix == ".safetensors"] or files:
        state |= read_file(file)
    return diffusers.to_original(state, config, folder)


def _filled(config: DiTConfig, labels: Sequence[str], state: State, where: object) -> DiT:
    """DiT of this architecture with the tensors of a state dict, in float32."""
    with torch.device("meta"):
        model = DiT(config, labels)
        for index, block in enumerate(model.blocks):
            if f"blocks.{index}.attn.gamma1" in state:
                add_scales(block)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    if wrong := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))[:3]:
        shapes = (f"{name} {tuple(found[name]) if name in found else 'missing'}" for name in wrong)
        needed = (f"{tuple(expected[name]) if name in expected else 'nothing'}" for name in wrong)
        raise InputError.weights(where, ", ".join(shapes), ", ".join(needed))
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return model


def _transformer(folder: Path) -> Path:
    """Folder of the transformer in a pipeline's folder, or the folder itself."""
    return folder / "transformer" if (folder / "transformer").is_dir() else folder


def _read_settings(folder: Path) -> tuple[DiTConfig, Sequence[str], dict[str, Any]]:
    """Architecture and labels (if known) of a DiT's folder; base and licences if this project wrote the folder."""
    expected = "the settings of a DiT that this version knows"
    remedy = "Give a model's folder as it was written, or use the version of dgs that wrote it"
    path = folder / _CONFIG
    try:
        if read_json(path, _Kind, expected, remedy, default={}).get("format") == FORMAT:
            own = read_json(path, _OwnSettings, expected, remedy)
            config = DiTConfig(**own["config"])  # type: ignore[arg-type]  # a mapping in the file
            return config, own["labels"], {"base": own["base"], "licences": tuple(own.get("licences", ()))}
        path = _transformer(folder) / _CONFIG
        config = diffusers.config_from_diffusers(read_json(path, diffusers.Settings, expected, remedy))
    except InputError as error:
        where, found, *_ = error.parts
        if where.startswith(str(path)):
            raise
        raise InputError.weights(path, f"{where} with {found}", expected, remedy) from None
    if not (folder / _BESIDE).is_file():
        return config, (), {}
    beside = read_json(folder / _BESIDE, _Beside, expected, remedy)
    return replace(config, frequencies=beside["frequencies"]), beside["labels"], {}


def _check_bases(folder: Path) -> None:
    """Check that the model that a folder starts from does not start from that folder itself."""
    seen = [folder.resolve()]
    while (own := _read_settings(folder)[2]) and own["base"] and (folder := folder / own["base"]["source"]).is_dir():
        if folder.resolve() in seen:
            expected, remedy = "a model that does not start from itself", "Restore the file as it was written"
            raise InputError(f"{seen[-1] / _CONFIG}: base.source", own["base"]["source"], expected, remedy)
        seen.append(folder.resolve())
