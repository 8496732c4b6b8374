"""The stages of influence guidance (IGD)."""

from dataclasses import replace

from dgs_lightning.runs.layout import INFLUENCE, SURROGATE
from dgs_lightning.runs.stages import MadeBy, Use


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
