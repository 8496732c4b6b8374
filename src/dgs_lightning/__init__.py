"""Difficulty-guided dataset distillation with diffusion transformers, in PyTorch Lightning."""

__version__ = "0.1.0"
