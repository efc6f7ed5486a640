"""The command `gan-jax export` as `python -m experiments.export`."""

from gan_jax.cli.main import main

if __name__ == "__main__":
    main(["export"])
