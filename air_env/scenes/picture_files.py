"""Pictures as they come: files, stacks of arrays, or whatever a data set holds, as numbers of one kind.

Whole numbers are divided by the largest of their type (255, 65,535), so that pictures of 8 and 16 bits compare; others
stay as they are. Colours of 16 bits keep all of them in stacks, and in TIFF where scikit-image is installed; in PNG 8.
"""

import hashlib
import struct
import warnings
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

Pixels = NDArray[np.floating]
Crop = tuple[int, int, int, int]
"""Left, top, right and bottom border in pixels of a file."""

MOST_PIXELS_A_SIDE = 6_000
"""Of what is looked at, as of photographs of 24 megapixels: a square of it takes 2 GB (our choice)."""
TIFF, STACKS = (".tif", ".tiff"), (".npy", ".npz")
SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF, ".bmp", ".gif", ".webp")
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_GREY = np.array([19595, 38470, 7471], np.float32) / 65536
"""What red, green and blue are worth in grey (ITU-R 601-2)."""


def load_picture(path: Path, crop: Crop | None = None) -> Image.Image:
    """Reads a file, turned upright, of which all or a part is to be looked at.

    Raises:
        ValueError: The file is missing, damaged, of several pages or not a picture, or so large that it is not decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as file:
                if file.format == "TIFF" and (pages := getattr(file, "n_frames", 1)) > 1:
                    raise ValueError(f"it has {pages} pages: save each as a file, or all as a .npy stack")
                width, height = file.size
                left, top, right, bottom = crop or (0, 0, width, height)
                # No part is larger than the picture; that it lies within it is checked by who names it.
                if min(max(right - left, bottom - top), max(width, height)) <= MOST_PIXELS_A_SIDE:
                    image = ImageOps.exif_transpose(file)
                    image.load()
                    return image
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist; check its name") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path} is not a picture that can be read; save it as PNG or JPEG") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise ValueError(f"{path} has more than {most} pixels; make it smaller, or cut out what it shows") from error
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read ({error}); save or copy it again as PNG or JPEG") from error
    raise ValueError(
        f"{path} is {width} x {height} pixels large, and at most {MOST_PIXELS_A_SIDE:,} a side are looked at; make it "
        "smaller, or name a part of it by --crop"
    )


def to_array(picture: object) -> NDArray:
    """A picture as ``[height, width]`` or ``[height, width, channel]``, in the type of its file.

    Args:
        picture: A path, a picture of Pillow, an array or a tensor (also ``[channel, height, width]``); or a tuple or a
            dict of a data set, whose first part, or whose only picture, is one.

    Raises:
        ValueError: It is none of these, or cannot be read.
    """
    if isinstance(picture, tuple | list) and len(picture) > 0 and not np.isscalar(picture[0]):
        # Items of a data set: image, label.
        return to_array(picture[0]) if isinstance(picture, tuple) else _checked(np.asarray(picture))
    if isinstance(picture, dict):
        raise ValueError(
            f"a row with the columns {', '.join(map(str, picture))} is no picture; name one: data['image']"
        )
    if isinstance(picture, str | Path):
        return _read(Path(picture))
    if isinstance(picture, Image.Image):
        return _of_pillow(picture)
    return _checked(picture.numpy(force=True) if isinstance(picture, Tensor) else np.asarray(picture))


def _read(path: Path) -> NDArray:
    picture = load_picture(path)
    # Of colours of 16 bits Pillow keeps 8; scikit-image brings a package that keeps all, in TIFF.
    if picture.mode in ("RGB", "RGBA") and path.suffix.lower() in TIFF and find_spec("tifffile") is not None:
        import tifffile

        with tifffile.TiffFile(path) as file:
            if file.pages.first.dtype == np.uint16:
                return _checked(file.asarray())
    return _of_pillow(picture)


def _of_pillow(image: Image.Image) -> NDArray:
    if image.mode.startswith("I"):
        # 16 bits, which Pillow would clip to 8.
        return np.asarray(image).clip(0, 65535).astype(np.uint16)
    if image.mode == "F":
        return _checked(np.asarray(image))
    alpha = image.has_transparency_data
    grey = image.mode in ("1", "L", "LA", "La")
    return np.asarray(image.convert(("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB")))


def _checked(array: NDArray) -> NDArray:
    """An array with its colours last.

    Raises:
        ValueError: It is no picture, or not finite.
    """
    if array.ndim == 3 and array.shape[-1] > 4 and array.shape[0] <= 4:
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or array.dtype.kind not in "buf" + "i" or array.size == 0 or array.shape[2:] > (4,):
        raise ValueError(
            f"a picture must be numbers [height, width] or [height, width, 1 to 4 colours]; got {array.dtype} of shape "
            f"{array.shape}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("a picture holds NaN or infinite values; mend it or leave it out")
    return array


def colour_and_alpha(array: NDArray, channels: int) -> tuple[Pixels, Pixels]:
    """Grey or RGB ``[height, width, channel]`` and opacity ``[height, width, 1]``, float32; `to_array` gives arrays."""
    largest = {"b": 1, "u": np.iinfo(array.dtype).max} if array.dtype.kind == "u" else {"b": 1}
    pixels = np.atleast_3d(array).astype(np.float32) / np.float32(largest.get(array.dtype.kind, 1))
    has_alpha = pixels.shape[-1] in (2, 4)
    colour, alpha = (pixels[..., :-1], pixels[..., -1:]) if has_alpha else (pixels, np.ones_like(pixels[..., :1]))
    if channels == 1 and colour.shape[-1] == 3:
        colour = (colour @ _GREY)[..., None]
    return np.broadcast_to(colour, (*colour.shape[:2], channels)), alpha


def find_pictures(source: object) -> Sequence[Any]:
    """What pictures there are: the files of a folder, in the order of their names, or those of a stack.

    Args:
        source: A folder, which is looked through with all folders in it; a ``.npy`` or ``.npz`` file of an array
            ``[picture, height, width]`` or with colours; such an array or tensor; or any sequence of what `to_array`
            takes: a torch ``Dataset``, a column of a Hugging Face ``Dataset``, a list of paths.

    Raises:
        ValueError: There are none.
        FileNotFoundError: There is no such folder or file.
    """
    if not isinstance(source, str | Path):
        pictures = cast(Sequence[Any], source)
        if not (hasattr(pictures, "__len__") and hasattr(pictures, "__getitem__")):
            raise ValueError(f"images must be a folder, an array or a sequence of pictures; got {source!r:.200}")
        if len(pictures) == 0:
            raise ValueError("there are no pictures: the sequence is empty")
        if isinstance(source, np.ndarray | Tensor) and source.ndim not in (3, 4):
            raise ValueError(
                f"a stack must have the shape [picture, height, width] or one with colours, got {tuple(source.shape)}"
            )
        return pictures
    path = Path(source)
    if path.suffix.lower() in STACKS and path.is_file():
        return find_pictures(_stack(path))
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder and no .npy or .npz file; name a folder of pictures by data_dir")
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    if pictures := [file for file in files if file.suffix.lower() in SUFFIXES]:
        return pictures
    if len(stacks := [file for file in files if file.suffix.lower() in STACKS]) == 1:
        return find_pictures(_stack(stacks[0]))
    raise ValueError(
        f"{path} holds no pictures ({len(files)} other files); put PNG, JPEG or TIFF files, or one .npy stack, there"
    )


def _stack(path: Path) -> NDArray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (*_UNREADABLE, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}); save the stack again by numpy.save") from error
    stacks = {name: array for name, array in arrays.items() if array.ndim in (3, 4) and array.dtype.kind in "biuf"}
    if len(stacks) != 1 and not (stacks := {name: stacks[name] for name in ("images", "x") if name in stacks}):
        raise ValueError(f"{path} holds {', '.join(arrays) or 'nothing'}; save one stack of pictures, as `images`")
    return next(iter(stacks.values()))


def digest(picture: object) -> bytes:
    """A short name of what a picture shows: equal pictures have the same one."""
    if isinstance(picture, str | Path):
        try:
            return hashlib.sha256(Path(picture).read_bytes()).digest()
        except OSError as error:
            raise ValueError(f"{picture} cannot be read ({error}); check the file") from error
    array = np.ascontiguousarray(to_array(picture))
    return hashlib.sha256(repr((array.shape, array.dtype.str)).encode() + array.tobytes()).digest()
