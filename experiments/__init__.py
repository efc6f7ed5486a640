"""The experiment files in `configs/`, and the commands under old names. The library never imports this package."""
