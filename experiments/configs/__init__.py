"""Experiment files: `get_config()` with the scalars, `build(config)` with the plain calls."""
