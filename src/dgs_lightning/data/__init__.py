"""Image sets on disk: classes, manifests, datasets, transforms and latent codecs."""
