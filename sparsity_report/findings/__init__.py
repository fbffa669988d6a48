"""A study in sentences."""
