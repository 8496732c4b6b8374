"""Reading of JSON and YAML: within limits of size and depth, and checked against a declared type."""
