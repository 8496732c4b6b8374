"""The diffusion transformer: its network, its weights on disk, and how it is fine-tuned."""
