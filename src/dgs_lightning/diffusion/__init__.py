"""The mathematics of diffusion: objectives, criteria, the denoising loop and its guidance."""
