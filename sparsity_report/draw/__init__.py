"""A study as pictures: frame → chart."""
