"""The command `gan-jax evaluate` as `python -m experiments.evaluate`."""

from gan_jax.cli.main import main

if __name__ == "__main__":
    main(["evaluate"])
