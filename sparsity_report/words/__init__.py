"""How things are said: language, sentences, numbers."""
