"""Where the kernel of a convolution lies: what its three arrays don't say."""

from typing import NamedTuple


class ConvGeometry(NamedTuple):
    """Of a convolution.

    Attributes:
      stride: of the positions of the kernel.
      padding: zeros on every side of the image.
      image: height and width of x.
      kernel: height and width of k.
    """

    stride: int
    padding: int
    image: tuple[int, int]
    kernel: tuple[int, int]

    @property
    def result(self) -> tuple[int, int]:
        """Height and width of y."""
        height, width = (
            (n + 2 * self.padding - k) // self.stride + 1 for n, k in zip(self.image, self.kernel, strict=True)
        )
        return height, width

    @property
    def spans(self) -> list[int]:
        """How many strides the kernel spans, in height and width."""
        return [-(-n // self.stride) for n in self.kernel]

    def turned(self) -> "ConvGeometry | None":
        """With x and y in each other's place and the kernel turned by 180 degrees, where that is a window too."""
        padding = self.kernel[0] - 1 - self.padding
        if self.stride > 1 or self.kernel[0] != self.kernel[1] or padding < 0:
            return None
        return ConvGeometry(1, padding, self.result, self.kernel)
