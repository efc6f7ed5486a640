"""The command `gan-jax translate` as `python -m experiments.translate`."""

from gan_jax.cli.main import main

if __name__ == "__main__":
    main(["translate"])
