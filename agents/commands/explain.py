"""Counts and locates the objects in image files.

    air-env explain digits photo.png
    air-env explain runs/multi_mnist-half_critic-0 *.png --output-dir found
    air-env explain runs/tabletop3d-exact-0 photo.jpg --crop 200 100 1000 900

A picture becomes what the agent was trained on: grey or RGB, square, small, bright on black. Objects should be as
large in it as in the agent's scenes: a quarter to a half of its side, for the scenes of digits. The shipped digits
agent was trained on 0 to 2 digits. For agents of three-dimensional objects, colours stay as they are, and what looks
like the border of the picture becomes black. For agents of a table, the picture shows a whole square table on a plain
background, from 37 degrees above, and nothing else: crop what is around. How large and where the table is does not
matter; that is found by trying.

Agents of people's own pictures (`air-env train images`) take files as in training: the same grey levels, background
and scale, whatever --invert says.

What is found is written as explanations.json and .png, counts.csv (a row for each file), objects.csv (a row for each
object), coco.json (boxes in COCO's form) and annotated/ (each file with its boxes).

An agent is sure of its count even where it understands little. The share of a picture that it explains,
1 - |x - reconstruction|^2 / |x|^2, says whether to believe it: of most scenes it was trained on, more than 0.9. Of a
table it says whether that is understood, not whether every item is.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from . import shell, terminal

_DOUBTFUL = 0.8
"""Explained share below which a warning is printed: that of 1 in 100 scenes of two digits."""
_DOUBTFUL_TABLE = 0.9
"""The same for tables (our choice): 1 in 100 scenes are below 0.964, pictures like photographs lie around 0.9."""
_REMEDY = "crop it to the objects, resize them, or thicken their strokes"
_REMEDY_TABLE = (
    "a whole square table, and nothing else (--crop), on a plain background, seen from 37 degrees above, with colours "
    "and light like theirs"
)


@dataclass(frozen=True)
class Arguments:
    """Counts and locates the objects in image files."""

    agent: terminal.AgentName
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """PNG, JPEG or TIFF files (also GIF, BMP, WebP), of at most 6,000 pixels a side, or with --crop so large a part."""
    output_dir: Path = Path("explanations")
    """Folder for what is found; replaces that of an earlier call."""
    crop: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom border of the part of every picture to look at, in pixels; default: all of it."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """Whether objects are dark on light; auto: where the border of the picture is light. Not for objects in 3D."""
    num_steps: int | None = None
    """Largest number of objects; default: the agent's."""
    device: terminal.Device = "auto"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env explain`; returns the exit status."""
    return terminal.run("explain", Arguments, explain, __doc__, argv)


def explain(arguments: Arguments) -> int:
    """Explains the files, prints and writes the results; the exit status says whether all files could be read."""
    if not arguments.images:
        raise ValueError("no pictures are named; name one or more PNG or JPEG files")
    terminal.at_least(1, num_steps=arguments.num_steps)

    import numpy as np
    import torch

    from ..evaluation.photographs import explained_shares, read_picture
    from ..inference.agent import Agent
    from ..jobs.devices import pick_device
    from .described import describe, table, write
    from .trained import load_trained, treatment_of_trained

    agent = load_trained(arguments.agent, pick_device(arguments.device))
    channels, side, _ = agent.model.image_shape
    solid = not agent.model.config.renderer.windows
    if solid and arguments.invert != "auto":
        raise ValueError("--invert is not for agents of three-dimensional objects, whose colours stay as they are")
    treatment = treatment_of_trained(arguments.agent, agent)
    kinds = agent.model.renderer.kinds if solid else ()
    on_table = solid and agent.model.scene_dim > 0
    finder = agent if on_table else None
    pictures, complaints = [], []
    for path in arguments.images:
        try:
            part = arguments.crop
            pictures.append(read_picture(path, side, arguments.invert, channels, solid, part, finder, treatment))
        except ValueError as error:
            complaints.append(str(error))
    if pictures:
        images = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        z = agent.explain(images, arguments.num_steps)
        probabilities = agent.count_posterior(images, z.z_pres.shape[1]) if isinstance(agent, Agent) else None
        results = describe(pictures, z, probabilities, explained_shares(images, z), kinds)
        print(table(results))
        least, remedy = (_DOUBTFUL_TABLE, _REMEDY_TABLE) if on_table else (_DOUBTFUL, _REMEDY)
        if doubtful := [result["file"] for result in results if result["explained"] < least]:
            print(
                f"\nwarning: less than {least} of {', '.join(doubtful)} is explained: do not trust the count, "
                f"however probable. Make the picture more like the agent's scenes: {remedy}",
                file=sys.stderr,
            )
        written = write(arguments.output_dir, pictures, images, z, results, agent.model.renderer.kinds)
        print(f"\nwrote {', '.join(map(str, written[:-1]))} and {written[-1]}")
    return shell.failed(*complaints) if complaints else shell.SUCCESS
