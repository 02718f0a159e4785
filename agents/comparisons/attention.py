"""DRAW's attention: windows of Gaussian filters, to read from an image and to write into one (Gregor et al., 2015).

read(x) = intensity * F_y x F_x^T,      write(patch) = intensity * F_y^T patch F_x        (Eq. 27 to 29)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WINDOW = 5
"""Numbers that say what a window is: centre y and x, log precision, log stride, log intensity (Eq. 21)."""


class Grid(nn.Module):
    """Grids of Gaussian filters, for the rows (y) and the columns (x) of an image (Eq. 19 to 26).

        mean_i = g + (i - (n - 1) / 2) stride,   F[i, a] ~ exp(-(a - mean_i)^2 / (2 sd^2)),   sum_a F[i, a] = 1

    Args:
        side: Of the image in pixels.
        size: Number n of filters per axis.
    """

    pixels: Tensor
    half_squares: Tensor
    offsets: Tensor

    def __init__(self, side: int, size: int) -> None:
        super().__init__()
        pixels = torch.arange(side) - (side - 1) / 2
        offsets = (torch.arange(size) - (size - 1) / 2) * ((side - 1) / (size - 1))
        for name, value in {"pixels": pixels, "half_squares": -0.5 * pixels**2, "offsets": offsets}.items():
            self.register_buffer(name, value, persistent=False)

    def forward(
        self, windows: Float[Tensor, "batch window 5"]
    ) -> tuple[Float[Tensor, "batch window size side"], Float[Tensor, "batch window size side"]]:
        """The filters of windows.

        Args:
            windows: Centre y and x (-1 and 1 are the borders), log precision (inverse variance in pixels), log stride
                (0 spreads the filters over the whole image) and log intensity.

        Returns:
            Of the rows; and of the columns, times the intensity.
        """
        centre = windows[..., :2, None] * ((len(self.pixels) + 1) / 2)
        precision, stride, intensity = windows[..., 2:].exp()[..., None, None].unbind(2)
        slopes = torch.addcmul(centre, stride, self.offsets) * precision
        # Up to a summand that a softmax does not see: -(a - mean)^2 / (2 sd^2).
        precision = precision[..., None]
        filters = F.softmax(torch.addcmul(precision * self.half_squares, slopes[..., None], self.pixels), -1)
        rows, columns = filters.unbind(2)
        return rows, columns * intensity


@dataclass(frozen=True)
class Stroke:
    """Output of the decoder: patch, writing filters and next reading filters.

    Attributes:
        rows: ``[batch, 2, n, side]``, filters to write with and to read with.
        columns: The same for the columns, with the windows' intensity.
        patch: ``[batch, n, n]``, what is written.
    """

    rows: Tensor
    columns: Tensor
    patch: Tensor

    def write(self, canvas: Float[Tensor, "batch side side"]) -> Float[Tensor, "batch side side"]:
        """The canvas with the patch added (Eq. 29)."""
        return torch.baddbmm(canvas, self.rows[:, 0].mT, self.patch.bmm(self.columns[:, 0]))

    def read(
        self, image: Float[Tensor, "batch side side"], picture: Float[Tensor, "batch side side"]
    ) -> tuple[Float[Tensor, "batch glimpse"], Float[Tensor, "batch glimpse"]]:
        """The glimpses of an image and of its difference from a picture (Eq. 27)."""
        rows, columns = self.rows[:, 1], self.columns[:, 1].mT
        seen = rows.bmm(image).bmm(columns).flatten(1)
        # Filters are linear: the glimpse of the difference is the difference of the glimpses.
        return seen, seen - rows.bmm(picture).bmm(columns).flatten(1)
