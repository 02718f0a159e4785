"""Looks at a folder of pictures before an agent is trained on them.

    air-env inspect photos
    air-env inspect stack.npy --object-size 8 16 --output-dir looked_at

It tells sizes, contrast, background and noise, how large objects are and how many there are, and what will not work;
and it prints the command that trains an agent, with the settings that follow from what was seen. The numbers are those
of a classical pipeline of scikit-image (pip install "air-env[images]"), whose boxes are on contact_sheet.png: look
there first. With boxes around what you want counted, the settings fit; otherwise give the size by --object-size.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from . import terminal

if TYPE_CHECKING:
    from PIL import Image

    from ..evaluation.inspection import Inspection
    from ..training.recipes import Recipe

_TILE, _COLUMNS, _TILES = 200, 6, 24
"""Side in pixels of a picture on the contact sheet, how many are abreast, and how many there are."""
INVERT = {"auto": None, "yes": True, "no": False}


@dataclass(frozen=True)
class Arguments:
    """Looks at a folder of pictures before an agent is trained on them."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of PNG, JPEG or TIFF files, also in folders in it; or a .npy or .npz stack."""
    output_dir: Path = Path("inspection")
    """Folder for contact_sheet.png; replaces that of an earlier call."""
    channels: Literal[1, 3] = 1
    """1 reads pictures as grey, 3 as RGB."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """Whether objects are darker than what is around them."""
    max_objects: int | None = None
    """N, the largest number of objects; default: what was seen, and one more."""
    object_size: tuple[float, float] | None = None
    """Smallest and largest longer side of an object, in pixels; default: what was seen."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `air-env inspect`; returns the exit status."""
    return terminal.run("inspect", Arguments, inspect, __doc__, argv)


def inspect(arguments: Arguments) -> None:
    """Looks, prints, and writes the contact sheet."""
    inspection = look(
        arguments.folder, arguments.channels, INVERT[arguments.invert], arguments.max_objects, arguments.object_size
    )

    from ..training.files import write_atomically
    from ..training.own_images import recipe_for
    from ..training.recipes import RECIPES

    print(described(inspection))
    for text in inspection.objections():
        print(f"warning: {text}")
    if inspection.object_size is not None:
        recipe = recipe_for(RECIPES["images"], inspection, arguments.max_objects)
        print(f"\n{settings(recipe)}\n\ntrain with:\n  {command(arguments)}")
    sheet = arguments.output_dir / "contact_sheet.png"
    write_atomically(sheet, lambda path: contact_sheet(inspection).save(path, "PNG"))
    print(f"\nwrote {sheet}: boxes are what the numbers above come from")


def look(
    folder: Path,
    channels: int = 1,
    invert: bool | None = None,
    max_objects: int | None = None,
    object_size: tuple[float, float] | None = None,
) -> "Inspection":
    """The inspection of a folder, with a bar.

    Raises:
        ValueError: There is nothing to look at, or scikit-image is not installed.
    """
    terminal.require("images", "skimage")
    terminal.at_least(1, max_objects=max_objects)
    from ..evaluation.inspection import inspect_pictures

    return inspect_pictures(folder, channels=channels, invert=invert, object_size=object_size)


def described(inspection: "Inspection") -> str:
    """What was seen, as lines of text."""
    import numpy as np

    treatment, found = inspection.treatment, inspection.found
    sizes = ", ".join(f"{width} x {height}" for width, height in inspection.sizes[:3])
    more = f" and {len(inspection.sizes) - 3} other sizes" if len(inspection.sizes) > 3 else ""
    noise, gradient, background = (
        float(np.median([getattr(one, name) for one in found])) for name in ("noise", "gradient", "background")
    )
    counts = inspection.counts
    rows = {
        "pictures": f"{inspection.num_pictures:,}, {inspection.num_different:,} of them different",
        "looked at": f"{len(found)}",
        "size": f"{sizes}{more} pixels; {', '.join(inspection.modes)}",
        "background": f"{background:.3f}, gradient {gradient:.3f}, noise {noise:.4f} (white is 1)",
        "objects are": "darker than the background" if treatment.invert else "brighter than the background",
        "contrast": f"{inspection.contrast:.1f} standard deviations of noise",
    }
    if inspection.object_size is not None:
        low, middle, high = inspection.object_size
        rows["object size"] = f"{middle:.1f} pixels, mostly {low:.1f} to {high:.1f}"
        rows["objects"] = f"{counts.mean():.1f} a picture, {counts.min()} to {counts.max()}"
    return "\n".join(f"{name:14s}{text}" for name, text in rows.items())


def settings(recipe: "Recipe") -> str:
    """The settings that follow from an inspection, as the options that change them."""
    options, model = recipe.scene_options, recipe.model
    crop = "" if options["crop"] is None else f" --scene-options.crop {options['crop']}"
    where = " ".join(f"{value:g}" for value in model.where_mean), " ".join(f"{value:g}" for value in model.where_sd)
    return "\n  ".join(
        [
            "settings that follow:",
            f"--scene-options.image-size {options['image_size']} --model.image-size {model.image_size}{crop}",
            f"--scene-options.invert {options['invert']} --model.num-steps {model.num_steps}",
            f"--model.where-mean {where[0]} --model.where-sd {where[1]}",
            f"--model.likelihood-scale {model.likelihood_scale:g} --num-train {recipe.num_train}",
        ]
    )


def command(arguments: Arguments) -> str:
    """The command that trains with these settings."""
    parts = ["air-env", "train", "images", "--data-dir", str(arguments.folder)]
    if arguments.channels != 1:
        parts += ["--channels", str(arguments.channels)]
    if arguments.invert != "auto":
        parts += ["--invert", arguments.invert]
    if arguments.max_objects is not None:
        parts += ["--max-objects", str(arguments.max_objects)]
    if arguments.object_size is not None:
        parts += ["--object-size", *(f"{size:g}" for size in arguments.object_size)]
    return shlex.join(parts)


def contact_sheet(inspection: "Inspection") -> "Image.Image":
    """The first pictures, as an agent would see them, with boxes around what was found."""
    import torch
    import torch.nn.functional as F
    from PIL import Image

    from air_env.frames import draw_windows

    shown = inspection.found[:_TILES]
    columns = min(_COLUMNS, len(shown))
    sheet = Image.new("RGB", (columns * (_TILE + 8), -(-len(shown) // columns) * (_TILE + 8)), (255, 255, 255))
    for i, found in enumerate(shown):
        height, width, _ = found.pixels.shape
        scale = _TILE / max(height, width)
        small = [max(1, round(scale * height)), max(1, round(scale * width))]
        pixels = F.interpolate(torch.from_numpy(found.pixels).movedim(-1, 0)[None], small, mode="bilinear")[0]
        tile = Image.fromarray(draw_windows(pixels, found.boxes * scale))
        sheet.paste(tile, (i % columns * (_TILE + 8), i // columns * (_TILE + 8)))
    return sheet
