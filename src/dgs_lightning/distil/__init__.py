"""From images to a distilled set: selection from a pool, and the centres of a class."""
