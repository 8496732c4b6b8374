"""The order in which the stages of a run start, if several run at the same time."""

from collections.abc import Mapping, Sequence

from dgs_lightning.errors import InputError
from dgs_lightning.experiment.images import image_folders, read_images
from dgs_lightning.experiment.settings import Experiment
from dgs_lightning.experiment.stage import Stage
from dgs_lightning.experiment.work import inputs_of, resolved, work_by_stage
from dgs_lightning.models.trial import Network
from dgs_lightning.tasks.work import Inputs


def longest_chain_first(stages: Sequence[Stage], lengths: Mapping[str, float]) -> list[Stage]:
    """Stages sorted by the longest chain of stages that wait for each other and begin with them; each after its needs.

    Args:
        stages: Stages, each after what it needs. Among equals, their order stays.
        lengths: Length of each stage by its name, in any unit, at least 0; 0 for stages without.
    """
    behind = dict.fromkeys((stage.name for stage in stages), 0.0)
    chains = {}
    for stage in reversed(stages):
        chains[stage.name] = lengths.get(stage.name, 0.0) + behind[stage.name]
        for needed in stage.needs:
            behind[needed.name] = max(behind.get(needed.name, 0.0), chains[stage.name])
    return sorted(stages, key=lambda stage: -chains[stage.name])


def operations_of(experiment: Experiment, stages: Sequence[Stage], inputs: Inputs | None = None) -> dict[str, float]:
    """Floating-point operations of the networks of each stage, as the doctor counts its work, by the stage's name.

    Only stages that train networks, or generate or invert images, have any. It is empty for images or networks that
    are not known.

    Args:
        experiment: The experiment.
        stages: Its stages.
        inputs: Sizes of the images that it starts from; by default they are read.
    """
    try:
        if inputs is None:
            folders = image_folders(experiment).items()
            inputs = inputs_of(experiment, {role: read_images(experiment, role, folder) for role, folder in folders})
        works = work_by_stage(experiment, resolved(stages, experiment), inputs) if inputs else {}
        return {name: max(0, work.passes) * _operations(work.network) for name, work in works.items() if work.network}
    except InputError:  # the stage that needs it tells it
        return {}


def _operations(network: Network) -> int:
    """Operations of a forward pass; 0 for a network that cannot be run without numbers, as your own may be."""
    try:
        return network.operations
    except (RuntimeError, TypeError, ValueError):
        return 0
