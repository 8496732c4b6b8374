"""Sets of other people: read from the formats in which they are published, and written as image sets of our own."""
