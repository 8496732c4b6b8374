"""LightningModules, one verb each: fit a DiT, generate images, score difficulty, train a classifier."""
