"""The only rooms that run a model: time, perplexity, sensitivity."""
