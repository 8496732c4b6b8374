"""The stages of D3HR (ICML 2025), from that of the image pool of a DiT."""

from dataclasses import replace

from dgs_lightning.runs.stages import MadeBy, Use

GROUPS = 10_000  # published are 1e8, of which the released code draws as many at a time


def started(pool: MadeBy, several: bool = False) -> tuple[MadeBy, MadeBy, MadeBy]:
    """Stages that invert the latents of the training images, draw groups of start latents, and denoise the best one.

    With ``several`` groups, there are as many as the pool is larger than the set, and the best one comes first.
    """
    encoder = {
        "model.class_path": "InversionTask",
        "model.init_args.codec": Use("codec"),
        "model.init_args.flips": False,
    }
    images = {"data.init_args.predict": Use("train"), "data.init_args.image_size": Use("image_size")}
    inverted = MadeBy(
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
    return inverted, best, replace(pool, name="guided/{set}", settings=settings, callback="InvertedStart", takes=takes)
