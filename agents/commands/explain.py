"""Counts and locates the objects in a person's own pictures.

    python scripts/explain_images.py digits photo.png
    python scripts/explain_images.py runs/multi_mnist-half_critic-0 *.png --output-dir found
    python scripts/explain_images.py runs/tabletop3d-exact-0 photo.jpg --crop 200 100 1000 900

A picture becomes what the agent was trained on: grey or RGB, square, small, bright on black. Objects should be as
large in it as in the agent's scenes: a quarter to a half of its side, for the scenes of digits. The shipped digits
agent was trained on 0 to 2 digits. For agents of three-dimensional objects, colours stay as they are, and what looks
like the border of the picture becomes black. For agents of a table, the picture shows a whole square table on a plain
background, from 37 degrees above, and nothing else: crop what is around. How large and where the table is does not
matter; that is found by trying.

An agent is sure of its count even where it understands little. The share of a picture that it explains,
1 - |x - reconstruction|^2 / |x|^2, says whether to believe it: of most scenes it was trained on, more than 0.9. Of a
table it says whether that is understood, not whether every item is.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from numpy.typing import NDArray
from PIL import Image

from air_env.explanation import DrawnExplanation
from air_env.frames import scene_frame
from air_env.model import Images

from .. import Agent, load_agent
from ..evaluation.photographs import Invert, Picture, explained_shares, read_all, read_picture
from ..jobs.devices import pick_device
from ..training.checkpoints import write_atomically, write_text_atomically

_MAX_FRAMES_ABREAST = 3
_MAX_CAPTION = 26
_DOUBTFUL = 0.8
"""Explained share below which a count is not to be trusted: that of 1 in 100 scenes of two digits."""
_DOUBTFUL_TABLE = 0.9
"""The same of tables (our choice): 1 in 100 scenes are below 0.964, pictures like photographs lie around 0.9."""
_REMEDY = "crop it to the objects, resize them, or thicken their strokes"
_REMEDY_TABLE = (
    "a whole square table, and nothing else (--crop), on a plain background, seen from 37 degrees above, with colours "
    "and light like theirs"
)


@dataclass(frozen=True)
class Arguments:
    """Counts and locates the objects in pictures."""

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")]
    """A run directory, an agent.safetensors file, or the name of a shipped agent (digits)."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """PNG or JPEG files (also GIF, BMP, WebP)."""
    output_dir: Path = Path("explanations")
    """Folder for explanations.png and explanations.json; replaces those of an earlier call."""
    crop: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom border of the part of every picture to look at, in pixels; default: all of it."""
    invert: Invert = "auto"
    """Whether objects are dark on light; auto: where the border of the picture is light. Not for objects in 3D."""
    num_steps: int | None = None
    """Largest number of objects; default: the agent's."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""


def main() -> None:
    """The command."""
    arguments = tyro.cli(Arguments, description=__doc__)
    try:
        complaints = explain_files(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if complaints:
        sys.exit("\n".join(f"error: {complaint}" for complaint in complaints))


def explain_files(arguments: Arguments) -> list[str]:
    """Explains the files, prints and writes the results; returns what is wrong with the other files."""
    if not arguments.images:
        raise ValueError("no pictures are named; name one or more PNG or JPEG files")
    if arguments.num_steps is not None and arguments.num_steps < 1:
        raise ValueError(f"--num-steps must be at least 1, got {arguments.num_steps}")
    agent = load_agent(arguments.agent, pick_device(arguments.device))
    channels, side, _ = agent.model.image_shape
    solid = not agent.model.config.renderer.windows
    if solid and arguments.invert != "auto":
        raise ValueError("--invert is not for agents of three-dimensional objects, whose colours stay as they are")
    kinds = agent.model.renderer.kinds if solid else ()
    read = partial(
        read_picture,
        side=side,
        invert=arguments.invert,
        channels=channels,
        solid=solid,
        crop=arguments.crop,
        agent=agent if agent.model.scene_dim else None,
    )
    pictures, complaints = read_all(arguments.images, read)
    if pictures:
        images = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        z = agent.explain(images, arguments.num_steps)
        probabilities = count_probabilities(agent, images, z.z_pres.shape[1])
        results = describe(pictures, z, probabilities, explained_shares(images, z), kinds)
        print(table(results))
        least, remedy = (_DOUBTFUL_TABLE, _REMEDY_TABLE) if agent.model.scene_dim else (_DOUBTFUL, _REMEDY)
        if doubtful := [result["file"] for result in results if result["explained"] < least]:
            print(
                f"\nwarning: less than {least} of {', '.join(doubtful)} is explained: do not trust the count, "
                f"however probable. Make the picture more like the agent's scenes: {remedy}",
                file=sys.stderr,
            )
        report, sheet = (arguments.output_dir / f"explanations.{kind}" for kind in ("json", "png"))
        write_text_atomically(report, json.dumps(results, indent=2) + "\n")
        write_atomically(sheet, lambda path: contact_sheet(images, z, results).save(path, "PNG"))
        print(f"\nwrote {sheet} and {report}")
    return complaints


@torch.no_grad()
def count_probabilities(agent: Agent, images: Images, num_steps: int) -> torch.Tensor:
    """``q(n | x) [batch, num_steps + 1]`` along the posterior modes, which `Agent.explain` follows."""
    presence, _, _ = agent.follow_modes(images.to(agent.model.log_p_count), num_steps)
    log_q = F.pad(F.logsigmoid(presence).cumsum(1), (1, 0)) + F.pad(F.logsigmoid(-presence), (0, 1))
    return log_q.exp()


def to_file_pixels(boxes: NDArray[np.floating], picture: Picture, side: int) -> NDArray[np.floating]:
    """Boxes ``(x0, y0, x1, y1)`` in pixels of the agent's image, in pixels of the file.

    Args:
        boxes: ``[box, 4]``.
        picture: What was made of the file.
        side: Side of the agent's image.
    """
    x, y, square = picture.window
    return boxes * (square / side) + [x, y, x, y]


def describe(
    pictures: Sequence[Picture],
    z: DrawnExplanation,
    probabilities: torch.Tensor,
    explained: torch.Tensor,
    kinds: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """What is written about each file: plain numbers, for the objects that are there."""
    side = z.reconstruction.shape[-1]
    boxes = z.boxes(side).cpu().numpy()
    results = []
    for i, (picture, count) in enumerate(zip(pictures, z.count.tolist(), strict=True)):
        results.append(
            {
                "file": str(picture.path),
                "size": list(picture.size),
                "inverted": picture.inverted,
                "count": count,
                "count_probability": round(probabilities[i, count].item(), 6),
                "explained": round(explained[i].item(), 6),
                "boxes": to_file_pixels(boxes[i, :count], picture, side).round(2).tolist(),
                "z_where": z.z_where[i, :count].tolist(),
                "z_what": z.z_what[i, :count].tolist(),
                **({"kinds": [kinds[k] for k in z.z_what[i, :count].tolist()]} if kinds else {}),
                **({"z_scene": z.z_scene[i].tolist()} if z.z_scene.shape[1] else {}),
            }
        )
    return results


def table(results: Sequence[dict[str, Any]]) -> str:
    """One line for each file."""
    width = max(len("file"), *(len(result["file"]) for result in results))
    lines = [f"{'file':{width}s}  count  probability  explained  boxes (x0, y0, x1, y1) in pixels of the file"]
    for result in results:
        boxes = "  ".join(
            f"{kind}({', '.join(f'{edge:.0f}' for edge in box)})"
            for kind, box in zip(result.get("kinds", [""] * result["count"]), result["boxes"], strict=True)
        )
        shares = f"{result['count_probability']:11.3f}  {result['explained']:9.3f}"
        lines.append(f"{result['file']:{width}s}  {result['count']:5d}  {shares}  {boxes}")
    return "\n".join(line.rstrip() for line in lines)


def contact_sheet(images: Images, z: DrawnExplanation, results: Sequence[dict[str, Any]]) -> Image.Image:
    """Each image with its windows beside its reconstruction, several files abreast."""
    boxes = z.boxes(images.shape[-1]).cpu().numpy()
    frames = []
    for pixels, canvas, box, result in zip(images.numpy(), z.reconstruction.cpu().numpy(), boxes, results, strict=True):
        captions = Path(result["file"]).name[-_MAX_CAPTION:], f"count {result['count']}"
        frame = scene_frame(pixels, canvas, box, captions)
        frames.append(np.pad(frame, ((0, 8), (0, 16), (0, 0)), constant_values=255))
    columns = min(_MAX_FRAMES_ABREAST, math.ceil(math.sqrt(len(frames))))
    frames += [np.full_like(frames[0], 255)] * (-len(frames) % columns)
    rows = [np.concatenate(frames[i : i + columns], 1) for i in range(0, len(frames), columns)]
    return Image.fromarray(np.concatenate(rows, 0))
