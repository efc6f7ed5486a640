"""The command `gan-jax sweep` as `python -m experiments.sweep`."""

from gan_jax.cli.main import main

if __name__ == "__main__":
    main(["sweep"])
