"""Networks: the class-conditional DiT, DiffFit and the downstream classifiers."""
