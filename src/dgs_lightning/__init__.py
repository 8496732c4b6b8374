"""Difficulty-guided dataset distillation with diffusion transformers, in PyTorch Lightning.

The public names are imported when they are first used, so that ``import dgs_lightning`` is instant.
"""

import importlib

__version__ = "0.3.0"

_MODULES = {
    "ClassificationTask": "tasks.classification",
    "DiffusionTask": "tasks.diffusion",
    "DistributionMatchingTask": "tasks.distribution_matching",
    "EncodingTask": "tasks.encoding",
    "GenerationTask": "tasks.generation",
    "GradientMatchingTask": "tasks.gradient_matching",
    "InversionTask": "tasks.inversion",
    "MinimaxTask": "tasks.minimax",
    "RefinementTask": "tasks.refinement",
    "ScoringTask": "tasks.scoring",
    "DifficultyGuidedDataModule": "datamodules.difficulty",
    "ImageDataModule": "datamodules.images",
    "LatentDataModule": "datamodules.latents",
    "RealImageDataModule": "datamodules.real_images",
    "RequestDataModule": "datamodules.requests",
    "CenterGuidance": "callbacks.guidance",
    "ClassifierGuidance": "callbacks.influence",
    "DifficultyAwareGuidance": "callbacks.guidance",
    "EpochCheckpoint": "callbacks.checkpointing",
    "GuidanceCallback": "callbacks.guidance",
    "ModeGuidance": "callbacks.guidance",
    "ImageWriter": "callbacks.image_writer",
    "InfluenceGuidance": "callbacks.influence",
    "InvertedStart": "callbacks.prototypes",
    "LatentWriter": "callbacks.latent_writer",
    "LearnedImagesWriter": "callbacks.learned_images_writer",
    "PublishedLength": "callbacks.published_length",
    "PrototypeStart": "callbacks.prototypes",
    "ResultWriter": "callbacks.result_writer",
    "ResumeCheckpoint": "callbacks.checkpointing",
    "SampleGrid": "callbacks.sample_grid",
    "ScoreWriter": "callbacks.score_writer",
    "StepsBySize": "callbacks.steps_by_size",
    "SurrogateWriter": "callbacks.surrogate_writer",
    "TrajectoryRecorder": "callbacks.trajectory_recorder",
    "WeightsWriter": "callbacks.weights",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
