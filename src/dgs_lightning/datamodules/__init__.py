"""LightningDataModules: class-folder trees, latent caches, generation requests, difficulty-guided sets."""
