"""Reading and writing DiT weights: diffusers folders, released checkpoints, and this project's own folders."""

import argparse
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dgs_lightning.errors import InputError
from dgs_lightning.files import write_json, write_tensors
from dgs_lightning.models.dit.difffit import add_scales, merge_difffit
from dgs_lightning.models.dit.diffusers import (
    TIMESTEPS,
    State,
    config_of,
    diffusers_settings,
    to_diffusers,
    to_original,
    with_diffusers_frequencies,
)
from dgs_lightning.models.dit.network import DiT, DiTConfig, default_labels, known_heads
from dgs_lightning.models.weights import read_file

FORMAT = "dgs-lightning/dit"
PUBLISHED_LICENCE = "DiT weights: CC BY-NC 4.0"
_BESIDE = "dgs.json"  # beside an exported transformer: what diffusers' config has no place for
Weights = Literal["ema", "raw"]


def load_dit(
    source: str, *, weights: Weights = "ema", labels: Sequence[str] | None = None, num_heads: int | None = None
) -> DiT:
    """Load a DiT in float32 and evaluation mode. No pickled code is ever executed.

    Args:
        source: A folder that :func:`save_dit` or diffusers wrote, the hub id of a diffusers model, or a file: the
            original DiT's ``.pt``, a released Minimax ``.pt``, or a state dict in the same naming as ``.safetensors``.
        weights: The average of the training's weights where one was kept, or the raw ones.
        labels: The classes wanted. Where the source does not name its classes, a list of the same length names them.
            Otherwise known labels keep their rows of the label table and new ones start as the null label's.
        num_heads: Attention heads, for a file that is not of a published size; no file says.

    Raises:
        InputError: If there is no such source, if it is of another architecture, or if it would run code.
    """
    path = Path(source)
    if path.is_file():
        model = _from_state(_select(read_file(path, [argparse.Namespace]), weights, path), path, labels, num_heads)
    elif (path / "config.json").is_file() and _read_json(path / "config.json").get("format") == FORMAT:
        model = _from_own(path, weights)
    else:
        model = _from_diffusers(path if path.is_dir() else _download(source), labels)
    model.licences = model.licences or published_licences(model.config)
    if labels is not None and tuple(labels) != model.labels:
        model.relabel(labels)
    return model.eval()


def save_dit(
    model: DiT, folder: Path, *, ema: Mapping[str, Tensor] | None = None, base: str | os.PathLike[str] | None = None
) -> None:
    """Write a weights folder: ``config.json``, ``model.safetensors`` and, where there is one, ``ema.safetensors``.

    Args:
        model: The DiT.
        folder: Where to; made if need be.
        ema: Averages of the parameters that are saved, by name.
        base: Folder, file or hub id that the frozen parameters were loaded from. Only trainable ones are saved then,
            otherwise all.
    """
    own: State = {}
    frozen: State = {}
    for name, parameter in model.named_parameters():
        (own if base is None or parameter.requires_grad else frozen)[name] = parameter.detach()
    write_tensors(folder / "model.safetensors", own)
    if ema is not None:
        write_tensors(folder / "ema.safetensors", {name: ema[name] for name in own})
    source = None if base is None else os.path.relpath(base, folder) if os.path.exists(base) else str(base)
    config = {
        "format": FORMAT,
        "config": asdict(model.config),
        "labels": model.labels,
        "licences": model.licences,
        "base": source and {"source": source, "hash": hash_state(frozen)},
    }
    write_json(folder / "config.json", config)


def export_diffusers(model: DiT, folder: Path, vae: str | None = None) -> None:
    """Write a folder that stock diffusers loads, DiffFit's scales merged into the weights.

    ``folder/transformer`` is a ``DiTTransformer2DModel``. With a VAE, ``folder`` is a whole ``DiTPipeline``. Of models
    with the original timestep frequencies, that is, those fine-tuned from the published weights, the timestep embedder
    is fitted to those of diffusers. Where the model is too narrow for that, a warning says that stock diffusers
    deviates; :func:`load_dit` does not.

    Args:
        model: The DiT, which stays as it is.
        folder: Where to; made if need be.
        vae: Folder or hub id of an ``AutoencoderKL``.

    Raises:
        InputError: If a pipeline is asked for of a model without 1,000 classes, which stock diffusers cannot run.
    """
    config = model.config
    if vae is not None and config.num_classes != 1000:
        raise InputError(
            "export of a DiTPipeline",
            found=f"{config.num_classes} classes",
            expected="1000: stock diffusers hard-codes the null label 1000",
            remedy="Export without a VAE and use the transformer",
        )
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    merged = _filled(config, model.labels, state, "model to export")
    merge_difffit(merged)
    if config.frequencies == "original" and config.hidden_size >= TIMESTEPS:
        merged.t_embedder = with_diffusers_frequencies(merged.t_embedder)
        config = replace(config, frequencies="diffusers")
    elif config.frequencies == "original":
        warnings.warn(
            "stock diffusers spaces the timestep frequencies by 1/127 of their range, this model was trained with the "
            "original 1/128, and its output there deviates",
            stacklevel=2,
        )
    transformer = folder / "transformer"
    write_tensors(transformer / "diffusion_pytorch_model.safetensors", to_diffusers(merged.state_dict(), config))
    write_json(transformer / "config.json", diffusers_settings(config))
    write_json(folder / _BESIDE, {"labels": model.labels, "frequencies": config.frequencies})
    if vae is not None:
        _save_pipeline(folder, vae, model.labels)


def _save_pipeline(folder: Path, vae: str, labels: Sequence[str]) -> None:
    """Complete an exported transformer to a ``DiTPipeline``."""
    import diffusers

    stock: Any = diffusers
    stock.DiTPipeline(
        transformer=stock.DiTTransformer2DModel.from_pretrained(folder / "transformer"),
        vae=stock.AutoencoderKL.from_pretrained(vae),
        scheduler=stock.DDIMScheduler(clip_sample=False),
    ).save_pretrained(folder)
    index = _read_json(folder / "model_index.json")
    write_json(folder / "model_index.json", index | {"id2label": dict(enumerate(labels))})


def hash_state(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _from_own(folder: Path, weights: Weights) -> DiT:
    """DiT of one of this project's weights folders, and of the base it refers to."""
    saved = _read_json(folder / "config.json")
    with _understood(folder / "config.json"):
        config, labels = DiTConfig(**saved["config"]), _texts(saved["labels"])
        base = saved["base"] and {name: str(saved["base"][name]) for name in ("source", "hash")}
        licences = tuple(_texts(saved.get("licences", [])))
    averaged = weights == "ema" and (folder / "ema.safetensors").is_file()
    state = read_file(folder / ("ema.safetensors" if averaged else "model.safetensors"))
    if base:
        source = folder / base["source"]
        model = load_dit(str(source) if source.exists() else base["source"], labels=labels, num_heads=config.num_heads)
        frozen = {name: tensor for name, tensor in model.state_dict().items() if name not in state}
        if hash_state(frozen) != base["hash"]:
            raise InputError(
                f"base {base['source']} of {folder}",
                found="other weights",
                expected="those that the fine-tuning started from",
                remedy="Restore the base",
            )
        state |= frozen
    model = _filled(config, labels, state, folder)
    model.licences = licences
    return model


def published_licences(config: DiTConfig) -> tuple[str, ...]:
    """Terms of the published weights, DiT-XL/2's: no others have this size and these frequencies."""
    published = (config.hidden_size, config.depth, config.frequencies) == (1152, 28, "original")
    return (PUBLISHED_LICENCE,) if published else ()


def _from_state(state: State, where: Path, labels: Sequence[str] | None, num_heads: int | None) -> DiT:
    """DiT of a state dict in the original naming, its architecture read off the shapes."""
    try:
        hidden, channels, patch, _ = state["x_embedder.proj.weight"].shape
        patches = state["pos_embed"].shape[1]
        classes = len(state["y_embedder.embedding_table.weight"]) - 1
        out = len(state["final_layer.linear.bias"]) // patch**2
        inner = len(state["blocks.0.mlp.fc1.bias"])
    except (KeyError, ValueError, IndexError) as error:  # nothing of the name, or of another shape
        found = f"no {error.args[0]}" if isinstance(error, KeyError) else "tensors of other shapes"
        raise InputError(
            where, found=found, expected="the state dict of a DiT", remedy="Give a DiT's weights"
        ) from None
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    heads = num_heads or known_heads(hidden, depth)
    if heads is None:
        raise InputError(
            where,
            found=f"a DiT of width {hidden} and depth {depth}",
            expected="a published size, or the number of attention heads",
            remedy="Set num_heads",
        )
    config = DiTConfig(
        input_size=round(patches**0.5) * patch,
        num_classes=classes,
        in_channels=channels,
        patch_size=patch,
        hidden_size=hidden,
        depth=depth,
        num_heads=heads,
        mlp_ratio=inner / hidden,
        learn_sigma=out == 2 * channels,
        frequencies="original",
    )
    return _filled(config, _names(classes, labels), state, where)


def _from_diffusers(folder: Path, labels: Sequence[str] | None) -> DiT:
    """DiT of diffusers' ``DiTTransformer2DModel``, alone in its folder or in a pipeline's."""
    transformer = folder / "transformer" if (folder / "transformer").is_dir() else folder
    saved = _read_json(transformer / "config.json")
    if saved.get("_class_name") != "DiTTransformer2DModel":
        raise InputError(
            folder,
            found=f"a {saved.get('_class_name', 'config.json of no known format')}",
            expected="a DiTTransformer2DModel, a DiTPipeline, or a weights folder of dgs",
            remedy="Give the folder of a DiT",
        )
    files = [f for f in sorted(transformer.iterdir()) if re.fullmatch(r"diffusion_pytorch_model(-.*)?\.\w+", f.name)]
    files = [f for f in files if f.suffix == ".safetensors"] or [f for f in files if f.suffix == ".bin"]
    state: State = {}
    for file in files:
        state |= read_file(file)
    with _understood(transformer / "config.json"):
        config = config_of(saved)
    names: Sequence[str] = _names(config.num_classes, labels)
    if (folder / _BESIDE).is_file():
        beside = _read_json(folder / _BESIDE)
        with _understood(folder / _BESIDE):
            config, names = replace(config, frequencies=beside["frequencies"]), _texts(beside["labels"])
    return _filled(config, names, to_original(state, config, transformer), transformer)


def _names(count: int, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Names for classes that the source leaves unnamed: the labels asked for, where they are as many.

    A source of 1,000 classes is one of ImageNet's.
    """
    if labels is not None and len(labels) == count != 1000:
        return tuple(labels)
    return default_labels(count)


def _filled(config: DiTConfig, labels: Sequence[str], state: State, where: object) -> DiT:
    """DiT of an architecture holding the tensors of a state dict, in float32."""
    with torch.device("meta"):
        model = DiT(config, labels)
        for index, block in enumerate(model.blocks):
            if f"blocks.{index}.attn.gamma1" in state:
                add_scales(block)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise InputError(
            where,
            found=", ".join(f"{name} {tuple(found[name]) if name in found else 'missing'}" for name in wrong[:3]),
            expected=", ".join(f"{tuple(expected[name]) if name in expected else 'nothing'}" for name in wrong[:3]),
            remedy="Give the weights of a DiT of this architecture",
        )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return model


def _select(content: Any, weights: Weights, path: Path) -> State:  # noqa: ANN401
    """The state dict asked for, out of a training checkpoint or alone."""
    if isinstance(content, dict) and ("ema" in content or "model" in content):
        key = "ema" if weights == "ema" and "ema" in content else "model"
        content = content.get(key)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(
            path, found="no state dict", expected="a DiT's tensors by name", remedy="Give the file of a DiT's weights"
        )
    return content


def _download(source: str) -> Path:
    """Local copy of a diffusers model on the hub."""
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        raise InputError(
            f"DiT {source!r}", found="no such file or folder", expected="weights", remedy="Correct the path"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(source, allow_patterns=["transformer/*"]))
    except (OSError, HfHubHTTPError) as error:
        raise InputError(
            f"DiT {source!r}",
            found=f"neither a file or folder here nor a model that the hub gives ({type(error).__name__})",
            expected="weights",
            remedy="Correct the path, or connect once to download it, or give the folder of a copy",
        ) from None


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Turn settings of other names, types or ranges than a DiT has into an error that says so."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = " with ".join(error.parts[:2]) if isinstance(error, InputError) else str(error)
        raise InputError(
            path,
            found=f"no {found}" if isinstance(error, KeyError) else found,
            expected="the settings of a DiT that this version knows",
            remedy="Give a model's folder as it was written, or the version of dgs that wrote it",
        ) from None


def _texts(texts: object) -> list[str]:
    """Labels or licences of a file, checked to be texts."""
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise TypeError("labels or licences that are no list of texts")
    return texts


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, found=f"{error}", expected="a JSON file", remedy="Give a model's folder") from None
    return content if isinstance(content, dict) else {}
