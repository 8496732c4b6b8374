"""The stages of CaO2 (Wang et al., ICCV 2025), from that of the image pool of a DiT."""

from dataclasses import replace

from dgs_lightning.runs.stages import SECTIONS, MadeBy, Use

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
