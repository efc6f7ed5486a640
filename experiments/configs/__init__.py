"""Experiment files. `get_config()` returns the scalars; `build(config)` calls the library with them."""
