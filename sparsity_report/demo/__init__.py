"""The built-in demo model: a small trained OPT and the script that made it."""
