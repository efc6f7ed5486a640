"""The command `gan-jax sample` as `python -m experiments.sample`."""

from gan_jax.cli.main import main

if __name__ == "__main__":
    main(["sample"])
