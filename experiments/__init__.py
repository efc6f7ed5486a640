"""The commands, and the experiment files in `configs/`. The library never imports this package."""
