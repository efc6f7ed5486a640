"""The geometry of a convolution: what the shapes of its operands leave open."""

from typing import NamedTuple


class ConvGeometry(NamedTuple):
    """Geometry of a convolution of an image x with a kernel k, whose result is y.

    Attributes:
      stride: step between neighbouring positions of the kernel on the image.
      padding: number of zeros added on every side of the image.
      image: height and width of the image x.
      kernel: height and width of the kernel k.
      swapped: whether the kernel is stored with its channel axes exchanged, `[g, u, v, o, i]`, as that of a transposed
        convolution is.
    """

    stride: int
    padding: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    swapped: bool = False

    @property
    def result(self) -> tuple[int, int]:
        """Height and width of the result y."""
        height, width = (
            (n + 2 * self.padding - k) // self.stride + 1 for n, k in zip(self.image, self.kernel, strict=True)
        )
        return height, width

    @property
    def spans(self) -> list[int]:
        """Number of strides that the kernel spans, rounded up, in height and width."""
        return [-(-n // self.stride) for n in self.kernel]

    def turned(self) -> "ConvGeometry | None":
        """Returns the geometry of the convolution that takes y to x, with the kernel turned by 180 degrees.

        It is None where that is not a convolution of this kind: for a stride above 1, a kernel that is not square, and
        a padding of the kernel's size or more.
        """
        assert not self.swapped
        padding = self.kernel[0] - 1 - self.padding
        if self.stride > 1 or self.kernel[0] != self.kernel[1] or padding < 0:
            return None
        return ConvGeometry(1, padding, self.result, self.kernel)
