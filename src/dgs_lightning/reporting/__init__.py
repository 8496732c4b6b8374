"""Tables, figures and pages from finished runs, beside the published numbers."""
