"""The stages that make the images of each kind of method, for the rows of the registry."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dgs_lightning.runs.layout import IMPORTED, INFLUENCE, SURROGATE
from dgs_lightning.runs.stages import SECTIONS, MadeBy, Use


def image_pool(model: str) -> MadeBy:
    """Stage that generates the image pool of a DiT."""
    settings = {
        "model.init_args.dit": Use(model),
        "model.init_args.codec": Use("decoder"),
        "data.init_args.seed": Use("seed"),
        "data.init_args.images_per_class": Use("pool_images"),
        "data.init_args.labels": Use("labels"),
    }
    return MadeBy(
        f"pools/{model}",
        "predict",
        section="generate",
        task="GenerationTask",
        data="RequestDataModule",
        settings=settings,
        writer="ImageWriter",
    )


_GUIDANCE = ("scale", "stop_timestep", "form", "guided")  # settings of a guidance towards centres


def guided(
    callback: str,
    centers: Mapping[str, Any],
    takes: tuple[str, ...] = (),
    own: tuple[str, ...] = _GUIDANCE,
    pool: bool = False,
) -> tuple[MadeBy, MadeBy]:
    """Stages that compute cluster centres and generate a set with a callback that uses them, one image for each centre.

    ``takes`` are the method's settings for the centres, ``own`` those for the callback. A ``pool`` has several images
    for each of the same centres, of which the first are those of the set.
    """
    computed = MadeBy(
        "centers/{set}",
        "centers",
        settings={
            "latents": Use("latents"),
            "labels": Use("labels"),
            "ipc": Use("ipc"),
            "seed": Use("seed"),
            **centers,
        },
        takes=takes,
        file="centers.safetensors",
    )
    requests = {"data.init_args.images_per_class": Use("ipc"), "data.init_args.centers": Use("previous")}
    if pool:
        requests |= {
            "data.init_args.images_per_class": Use("pool_images"),
            "data.init_args.images_per_center": Use("pool_multiple"),
        }
    settings = {**image_pool("guided").settings, **requests}
    generated = replace(image_pool("guided"), name="guided/{set}", settings=settings, callback=callback, takes=own)
    return computed, generated


def stitched(rule: str) -> tuple[MadeBy, MadeBy]:
    """Stages that cut crops from the originals, and put pictures together from those that a rule takes."""
    uses = ("teacher", "teacher_weights", "image_size", "seed")
    own = ("mipc", "crops", "factor", "scale", "view", "image_size")
    cut = MadeBy("crops", "crops", settings={"images": Use("train"), **{name: Use(name) for name in uses}}, takes=own)
    settings = {"crops": Use("previous"), "ipc": Use("ipc"), "seed": Use("seed"), "method": rule}
    return cut, MadeBy("stitched/{set}", "stitch", section="select", settings=settings, takes=("quality",))


def matched(config: str) -> tuple[MadeBy]:
    """Stage that learns the images of a set from the training images."""
    settings = {
        "model.init_args.images.ipc": Use("ipc"),
        "model.init_args.seed": Use("seed"),
        "data.init_args.train": Use("train"),
        "data.init_args.labels": Use("labels"),
    }
    return (MadeBy("matched/{set}", "fit", config=config, settings=settings, file="images"),)


def imported(name: str) -> tuple[MadeBy]:
    """Stage that imports a set of other people."""
    settings = {"original": Use("train"), "ipc": Use("ipc")}
    return (MadeBy(f"{IMPORTED}/{name}", "import", settings=settings),)


# ---- D3HR (ICML 2025) ----

GROUPS = 10_000  # published are 1e8, of which the released code draws as many at a time


def inverted(pool: MadeBy, several: bool = False) -> tuple[MadeBy, MadeBy, MadeBy]:
    """Stages that invert the latents of the training images, draw groups of start latents, and denoise the best one.

    With ``several`` groups, there are as many as the pool is larger than the set, and the best one comes first.
    """
    encoder = {
        "model.class_path": "InversionTask",
        "model.init_args.codec": Use("codec"),
        "model.init_args.flips": False,
    }
    images = {"data.init_args.predict": Use("train"), "data.init_args.image_size": Use("image_size")}
    latents = MadeBy(
        "inverted/{set}",
        "predict",
        section="latents",
        data="ImageDataModule",
        settings={**encoder, "model.init_args.dit": pool.settings["model.init_args.dit"], **images},
        takes=("model", "data", "index"),
        at="model.init_args",
        writer="LatentWriter",
    )
    drawn = {"latents": Use("previous"), "groups": GROUPS, **{name: Use(name) for name in ("labels", "ipc", "seed")}}
    best = MadeBy(
        "centers/{set}",
        "centers",
        settings={**drawn, "kept": Use("pool_multiple")} if several else drawn,
        takes=("groups",),
        file="centers.safetensors",
    )
    requests = {
        "model.init_args.sampler": "ddim",
        "data.init_args.images_per_class": Use("pool_images" if several else "ipc"),
        "data.init_args.centers": Use("previous"),
    }
    settings = {**pool.settings, **requests}
    takes = ("model", "index")
    return latents, best, replace(pool, name="guided/{set}", settings=settings, callback="InvertedStart", takes=takes)


# ---- CaO2 (Wang et al., ICCV 2025) ----

_SCALE = {"model.init_args.guidance_scale": 2.7}
_REFINEMENT = ("preset", "timestep", "label", "max_weight", "noise", "lr", "steps", "last_index")


def candidates(pool: MadeBy) -> MadeBy:
    """Stage that generates the candidates: the pool at a smaller scale of the guidance."""
    return replace(pool, name="pools/cao2", settings={**pool.settings, **_SCALE}, takes=SECTIONS)


def refined(pool: MadeBy) -> tuple[MadeBy, ...]:
    """Stages that generate the candidates, take those that are recognised, and refine the latents of these."""
    made = candidates(pool)
    rule = {"method": "right_confident", "pool": Use("previous"), "pool_scores": Use("previous_scores")}
    numbers = {name: Use(name) for name in ("ipc", "pool_images", "seed")}
    chosen = MadeBy("selected/{set}", "select", section="select", settings={**rule, **numbers}, takes=())
    model = {key: value for key, value in made.settings.items() if key.startswith("model.")}
    settings = {"model.class_path": "RefinementTask", **model, "data.init_args.images": Use("previous")}
    at, takes = "model.init_args.refinement", (*SECTIONS, *_REFINEMENT)
    return made, chosen, replace(made, name="refined/{set}", settings=settings, takes=takes, at=at)


# ---- IGD ----


def influenced(pool: MadeBy, images: str) -> tuple[MadeBy, MadeBy]:
    """Stages that train the surrogate of IGD, and generate images with its guidance.

    Args:
        pool: Stage that generates images without it.
        images: Value of :class:`Use` with the images of each class: ``ipc`` for a set, ``pool_images`` for a pool.
    """
    surrogate = MadeBy(
        SURROGATE,
        "fit",
        config="classify/surrogate.yaml",
        settings={
            "data.init_args.train": Use("train"),
            "data.init_args.val": Use("val"),
            "trainer.devices": 1,
            "trainer.strategy": "auto",
        },
        takes=("config",),
        file=INFLUENCE,
    )
    settings = {
        **pool.settings,
        "model.init_args.keep_latents": True,
        "data.init_args.images_per_class": Use(images),
        "callback.surrogate": Use("previous"),
    }
    own = ("scale", "deviation_scale", "first", "last", "chunk")
    generated = replace(pool, name="guided/{set}", settings=settings, callback="InfluenceGuidance", takes=own)
    return surrogate, generated
