"""DRAW: a picture painted in many small strokes (Gregor et al., 2015), which the paper compares AIR with.

At every step the encoder reads a window of the image and of what the canvas lacks, and the decoder adds a
window to the canvas; both windows are chosen by the decoder:

    r_t = read(x, x - sigmoid(c_{t-1}), h_dec_{t-1})                             (Eq. 3, 4, 27)
    h_enc_t = LSTM([r_t, h_dec_{t-1}], h_enc_{t-1}),   z_t ~ N(mean, sd)(h_enc_t)   (Eq. 1, 2, 5, 6)
    h_dec_t = LSTM(z_t, h_dec_{t-1}),   c_t = c_{t-1} + write(h_dec_t)              (Eq. 7, 8, 29)

and the ELBO is ``log p(x | sigmoid(c_T)) - sum_t KL(q(z_t) || N(0, 1))`` (Eq. 9 to 12).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from air_env.likelihoods import LIKELIHOODS, Likelihood
from air_env.reading import keep_whole
from air_env.scenes import SceneDataset

from .attention import WINDOW, Grid, Stroke
from .model import ComparisonSettings, ImageModel

_NUM_IWAE = 1_000
_FIRST_WRITING, _FIRST_READING = [0.0, 0.0, 0.0, -0.5, 2.0], [0.0, 0.0, -1.0, -0.5, 0.0]
"""Windows before training, of 0.6 of the image (our choice); a stroke that is strong makes black white in few steps."""

Pictures = Float[Tensor, "batch 1 side side"]


@dataclass(frozen=True)
class DRAWConfig(ComparisonSettings):
    """Settings of DRAW."""

    kind: ClassVar[str] = "draw"

    image_size: int = 50
    """Side of the square, grey image in pixels."""
    num_steps: int = 40
    """Steps of painting (AIR paper: 40)."""
    latent: int = 10
    """Latents per step (our choice)."""
    hidden: int = 128
    """Units of the encoder's and of the decoder's LSTM (our choice: what one core does in minutes)."""
    window: int = 6
    """Filters per axis of the reading and of the writing window (our choice)."""
    likelihood_scale: float = 0.2
    """Standard deviation of a pixel; before training, where it is learned."""
    learn_scale: bool = False
    """Whether it is learned by the bound: it falls as pictures get better (Rybkin et al., 2021)."""
    initial_canvas: float = -4.0
    """Logit of every pixel before the first step, to begin with; it is learned."""

    def __post_init__(self) -> None:
        keep_whole(self, 2, "image_size", "window")
        keep_whole(self, 1, "num_steps", "latent", "hidden")

    def make(self) -> "DRAW":
        """The model."""
        return DRAW(self)


@dataclass(frozen=True)
class Painting:
    """Results of one pass over the steps.

    Attributes:
        canvases: Logits of the pixels after every step, ``[batch, side, side]`` each; the last is c_T.
        z: ``[batch, step, latent]``.
        mean: Of ``q(z_t | x, z_1, ..., z_{t-1})``.
        log_sd: Its logarithmic standard deviation.
    """

    canvases: list[Tensor]
    z: Tensor
    mean: Tensor
    log_sd: Tensor

    def kl(self) -> Float[Tensor, "batch"]:
        """Divergence from the standard normal prior in nats, summed over the steps (Eq. 10)."""
        return 0.5 * (self.mean**2 + (2 * self.log_sd).exp() - 2 * self.log_sd - 1).sum((1, 2))

    def log_ratio(self) -> Float[Tensor, "batch"]:
        """``log p(z) - log q(z | x)`` of the latents in nats, whose mean under q is minus the divergence."""
        noise = (self.z - self.mean) * (-self.log_sd).exp()
        return (0.5 * (noise**2 - self.z**2) + self.log_sd).sum((1, 2))


class DRAW(ImageModel):
    """DRAW with attentive reading and writing.

    Deviation: the likelihood is AIR's Gaussian around the picture, not Bernoulli, so that bounds can be compared.

    Args:
        config: Settings.

    Example:
        >>> DRAW(DRAWConfig(num_steps=3)).reconstruct(torch.zeros(2, 1, 50, 50)).shape
        torch.Size([2, 1, 50, 50])
    """

    objective = "elbo"
    batch_size = 256

    def __init__(self, config: DRAWConfig) -> None:
        super().__init__()
        self.config = config
        n = config.window
        self.encoder = LSTM(2 * n**2 + config.hidden, config.hidden)
        self.posterior = nn.Linear(config.hidden, 2 * config.latent)
        self.decoder = LSTM(config.latent, config.hidden)
        # Where to write now, where to read next, and what to write: all that is read off the decoder.
        self.stroke = nn.Linear(config.hidden, 2 * WINDOW + n**2)
        with torch.no_grad():
            self.stroke.bias[: 2 * WINDOW] = torch.tensor(_FIRST_WRITING + _FIRST_READING)
        self.canvas = nn.Parameter(torch.tensor(config.initial_canvas))
        if config.learn_scale:
            self.log_sd = nn.Parameter(torch.tensor(math.log(config.likelihood_scale)))
        self.grid = Grid(config.image_size, n)

    @property
    def likelihood(self) -> Likelihood:
        """Of pixels, with the standard deviation that was set or learned so far."""
        learned = self.config.learn_scale
        return LIKELIHOODS["gaussian"](self.log_sd.exp().item() if learned else self.config.likelihood_scale)

    def terms(
        self, images: Pictures, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch"]]:
        """The log-likelihood of a sample, and the divergences in closed form, in nats."""
        painting = self.paint(images, self.noise(images, generator))
        return self._log_likelihood(images, painting), painting.kl()

    @torch.no_grad()
    def iwae(
        self, images: Pictures, num_samples: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch"]:
        """The importance-weighted bound in nats: ``log mean_s p(x, z_s) / q(z_s | x)``.

        Raises:
            ValueError: There are no samples.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        weights = []
        for _ in range(num_samples):
            painting = self.paint(images, self.noise(images, generator))
            weights.append(self._log_likelihood(images, painting) + painting.log_ratio())
        return torch.stack(weights).logsumexp(0) - math.log(num_samples)

    def evaluate(self, scenes: SceneDataset, num_samples: int = 20) -> dict[str, float]:
        """Metrics of `measure`, and the importance-weighted bound on the first 1,000 scenes, as it is slow."""
        measured, images = super().evaluate(scenes), scenes[:_NUM_IWAE].float_images(self.device)
        return measured | {"iwae": self.in_batches(lambda part: self.iwae(part, num_samples), images).mean().item()}

    def reconstruct(self, images: Pictures) -> Pictures:
        """The pictures that the posterior means paint."""
        return self.in_batches(lambda part: self.paint(part).canvases[-1].sigmoid()[:, None], images)

    def features(self, images: Pictures) -> Float[Tensor, "batch features"]:
        """The posterior means of all steps, each step's given the means before it."""
        return self.in_batches(lambda part: self.paint(part).mean.flatten(1), images)

    @torch.no_grad()
    def trace(self, images: Pictures) -> Float[Tensor, "batch step 1 side side"]:
        """The picture after every step, painted by the posterior means."""
        return torch.stack(self.paint(images).canvases, 1).sigmoid()[:, :, None]

    def noise(self, images: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "step batch latent"]:
        """Standard normal noise for one pass."""
        size = (self.config.num_steps, len(images), self.config.latent)
        return torch.randn(size, generator=generator, dtype=images.dtype, device=images.device)

    def paint(self, images: Pictures, noise: Float[Tensor, "step batch latent"] | None = None) -> Painting:
        """One pass over the steps.

        Args:
            images: In [0, 1].
            noise: Of the latents; without it they are the posterior means.
        """
        x = images[:, 0]
        canvas = self.canvas.expand_as(x)
        hidden = x.new_zeros(len(x), self.config.hidden)
        h_enc, h_dec = (hidden, hidden), (hidden, hidden)
        stroke = self._stroke(hidden)
        canvases, z, moments = [], [], []
        for step in range(self.config.num_steps):
            h_enc = self.encoder([*stroke.read(x, canvas.sigmoid()), h_dec[0]], h_enc)
            moments.append(self.posterior(h_enc[0]))
            mean, log_sd = moments[-1].chunk(2, 1)
            z.append(mean if noise is None else torch.addcmul(mean, log_sd.exp(), noise[step]))
            h_dec = self.decoder([z[-1]], h_dec)
            stroke = self._stroke(h_dec[0])
            canvas = stroke.write(canvas)
            canvases.append(canvas)
        mean, log_sd = torch.stack(moments, 1).chunk(2, 2)
        return Painting(canvases, torch.stack(z, 1), mean, log_sd)

    def _log_likelihood(self, images: Tensor, painting: Painting) -> Tensor:
        picture = painting.canvases[-1].sigmoid()[:, None]
        if not self.config.learn_scale:
            return self.likelihood.log_prob(images, picture)
        # In units of the standard deviation, so that it has a gradient.
        log_prob = LIKELIHOODS["gaussian"](1.0).log_prob(images / self.log_sd.exp(), picture / self.log_sd.exp())
        return log_prob - images[0].numel() * self.log_sd

    def _stroke(self, hidden: Tensor) -> Stroke:
        n = self.config.window
        windows, patch = self.stroke(hidden).split([2 * WINDOW, n**2], 1)
        rows, columns = self.grid(windows.view(-1, 2, WINDOW))
        return Stroke(rows, columns, patch.view(-1, n, n))


class LSTM(nn.Module):
    """A long short-term memory with one matrix product per step, which is quicker than torch's two.

    Args:
        inputs: Numbers read per step.
        hidden: Units.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)

    def forward(self, inputs: list[Tensor], state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The next output and memory, ``[batch, hidden]``, from the inputs side by side."""
        hidden, cell = state
        # tanh(a) = 2 sigmoid(2 a) - 1, and the weights may as well hold 2 a.
        add, keep, show, new = self.gates(torch.cat([*inputs, hidden], 1)).sigmoid().chunk(4, 1)
        cell = torch.addcmul(keep * cell, add, 2 * new - 1)
        return show * cell.tanh(), cell
