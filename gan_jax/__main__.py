"""The command `python -m gan_jax`, for environments in which the script `gan-jax` is not on the path."""

from gan_jax.cli.main import main

if __name__ == "__main__":
    main()
