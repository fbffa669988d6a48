"""Open a model for counting: one interface, one file per source."""
