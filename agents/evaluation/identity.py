"""Whether what is drawn still is what it was: a classifier, trained on a scene's own objects, reads reconstructions.

    identity_agreement = share of objects, each drawn alone, that a `Reader` takes for what they are

A reader looks at the square around an object's true box, with a margin, in an original as in a reconstruction. It is
trained with labels on scenes of single objects of the training split. The share of originals of the test split that it
names right is what perfect reconstructions would reach.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from air_env import geometry
from air_env.explanation import Images
from air_env.scenes import ComposedScene, SceneDataset

from ..inference.convolutions import convolutional


@dataclass(frozen=True)
class ReaderConfig:
    """Settings of a reader and of its training (our choice)."""

    crop: int = 28
    """Side in pixels of what it looks at; that of MNIST's digits."""
    margin: float = 1.25
    """Side of the square that it looks at, relative to the smallest one around the object."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the convolutions."""
    hidden: int = 128
    """Units of the fully connected layer."""
    placings: int = 10
    """Training scenes for each glyph."""
    most_scenes: int = 40_000
    """Training scenes at most."""
    num_test: int = 5_000
    """Held-out scenes on which its accuracy is measured."""
    epochs: int = 4
    """Passes over the training scenes."""
    batch_size: int = 128
    """Scenes per iteration."""
    learning_rate: float = 5e-3
    """Largest learning rate of AdamW, which rises to it and falls to 0."""
    shake: float = 0.1
    """Standard deviation, in training, of a square's log size, and of its place relative to its size."""
    seed: int = 0
    """Decides the scenes, the initial weights, the order of batches and all noise."""


class Reader(nn.Module):
    """A convolutional network that names single objects.

    Args:
        config: Settings.
        num_classes: Number of names.
        colours: Of the images: 1 or 3.
    """

    accuracy: Tensor
    """Share of held-out originals, each alone in its image, that it names right."""

    def __init__(self, config: ReaderConfig, num_classes: int, colours: int) -> None:
        super().__init__()
        self.config, self.num_classes, self.colours = config, num_classes, colours
        self.layers = convolutional(
            config.channels, config.crop, config.hidden, num_classes, inputs=colours, normalise=True
        )
        self.register_buffer("accuracy", torch.tensor(0.0))

    def forward(self, images: Images, squares: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch classes"]:
        """Logits of what is in the squares, which are windows (`air_env.geometry`)."""
        return self.layers(geometry.attend(images, squares, self.config.crop))

    @torch.no_grad()
    def read(self, images: Images, boxes: Float[Tensor, "batch 4"]) -> Int[Tensor, "batch"]:
        """The most probable class of what is in each image's box ``(x0, y0, x1, y1)``, in pixels."""
        return self(images, self.squares(boxes, images.shape[-1])).argmax(1)

    def squares(self, boxes: Float[Tensor, "batch 4"], side: int) -> Float[Tensor, "batch 3"]:
        """The windows around boxes in pixels, with a margin."""
        around = geometry.from_boxes(boxes, side)
        return around + around.new_tensor([math.log(self.config.margin), 0, 0])


def train_reader(scene: ComposedScene, config: ReaderConfig | None = None) -> Reader:
    """Trains a reader of a scene's objects; the same arguments give the same one, and leave other noise alone."""
    config = config or ReaderConfig()
    scene = replace(scene, counts=(1,))
    num_train = min(config.most_scenes, config.placings * len(scene.glyphs("train").labels))
    train = scene.dataset("train", num_train, config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # noqa: TID251 (forked)
        reader = Reader(config, int(train.labels.max()) + 1, train.images.shape[1])
    _fit(reader, train)
    test = scene.dataset("test", config.num_test, config.seed)
    parts = [test[rows] for rows in torch.arange(len(test)).split(config.batch_size)]
    right = [reader.read(part.float_images(), part.boxes[:, 0]) == part.labels[:, 0] for part in parts]
    reader.accuracy.fill_(torch.cat(right).float().mean())
    return reader


@torch.enable_grad()
def _fit(reader: Reader, scenes: SceneDataset) -> None:
    """Trains a reader on scenes of one object each, in squares that are shaken, as reconstructions are misplaced."""
    config, squares = reader.config, reader.squares(scenes.boxes[:, 0], scenes.images.shape[-1])
    noise = torch.Generator().manual_seed(config.seed)
    epochs = [torch.randperm(len(scenes), generator=noise).split(config.batch_size) for _ in range(config.epochs)]
    batches = [rows for epoch in epochs for rows in epoch]
    optimizer = torch.optim.AdamW(reader.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, len(batches))
    for rows in batches:
        batch, square = scenes[rows], squares[rows]
        shift = config.shake * torch.randn(square.shape, generator=noise)
        shift[:, 1:] *= square[:, :1].exp()
        loss = F.cross_entropy(reader(batch.float_images(), square + shift), batch.labels[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    reader.eval()
