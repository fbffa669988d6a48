"""Variants → frames: one frozen value that can be saved, read and rendered."""
