"""A study in a notebook: the widget, what it shows in a state, and how that is drawn."""
