"""A program that translates a picture in a limited address space; its argument is the memory it believes to have."""

import pathlib
import resource
import sys

import flax.linen as nn
import numpy as np

from tests.runtime.test_translation import direct, picture, trained

LEFT = 2**28  # bytes that the process may still map


class Wide(nn.Module):
    """Has 64 channels between images, so that it needs much more memory than its pictures."""

    @nn.compact
    def __call__(self, image, *, train):
        return nn.tanh(nn.Conv(3, (1, 1))(nn.tanh(nn.Conv(64, (3, 3))(image))))


def main(memory):
    made, image = trained(Wide), picture(1200, 1200)
    expected = direct(made, image)
    translator = made.translator(log=print, memory=int(memory) or None)
    translator(image[:300, :300])  # starts all threads
    mapped = int(pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + LEFT, resource.RLIM_INFINITY))
    np.testing.assert_allclose(translator(image), expected, atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1])
