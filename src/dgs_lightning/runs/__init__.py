"""What the writer and the reader of a run must agree on: its folders, its records and its methods."""
