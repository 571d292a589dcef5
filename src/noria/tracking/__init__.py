"""Experiments and their runs: params, metrics over steps, tags, datasets, logged models."""
