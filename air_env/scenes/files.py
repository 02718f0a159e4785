"""Finding data files: a user's folder first, else a checked download."""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import pooch

DATA_DIR_VARIABLE = "AIR_DATA_DIR"


def read_gzip(name: str, sha256: str, size: int, base_url: str, data_dir: Path | str | None = None) -> bytes:
    """The checked content of a gzip file, which may be packed in different ways; the rest is as in `read_file`.

    Args:
        name: Path of the file inside the data folder.
        sha256: Checksum of the decompressed content.
        size: Its length in bytes; a file that holds more is not read to its end.
        base_url: Where to download the file from.
        data_dir: The user's folder.
    """
    path = find_file(name, base_url, data_dir)
    try:
        with gzip.open(path) as file:
            content = file.read(size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or not gzip ({error}); delete it and get it again") from error
    return _checked(path, content, sha256, size, " decompressed")


def read_file(name: str, sha256: str, size: int, base_url: str, data_dir: Path | str | None = None) -> bytes:
    """The checked content of a file.

    Args:
        name: Path of the file inside the data folder.
        sha256: Checksum of the content.
        size: Its length in bytes; a file that holds more is not read to its end.
        base_url: Where to download the file from.
        data_dir: The user's folder.

    Raises:
        FileNotFoundError: The folder does not hold the file.
        ValueError: The file is not the expected one.
        OSError: The download failed.
    """
    path = find_file(name, base_url, data_dir)
    with path.open("rb") as file:
        return _checked(path, file.read(size + 1), sha256, size)


def find_file(name: str, base_url: str, data_dir: Path | str | None = None) -> Path:
    """A data file, unchecked: that in ``data_dir``, else in the folder that ``AIR_DATA_DIR`` names.

    Where neither is named, it is downloaded once into the user's cache: the last part of ``name``, at ``base_url``.

    Raises:
        FileNotFoundError: The folder does not hold the file.
        OSError: The download failed.
    """
    # An empty variable names no folder.
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE) or None
    path = _download(name, base_url) if folder is None else Path(folder) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; put the file there, name another folder with --data-dir or {DATA_DIR_VARIABLE}, "
            "or name none to download it"
        )
    return path


def _checked(path: Path, content: bytes, sha256: str, size: int, how: str = "") -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} has the wrong content: sha256 {found} of the first {len(content)} bytes{how}, wanted {sha256} of "
            f"{size}; delete it and get it again"
        )
    return content


def _download(name: str, base_url: str) -> Path:
    folder = pooch.os_cache("air-env") / Path(name).parent
    try:
        # The archives differ between mirrors, their content does not: the caller checks that.
        return Path(pooch.retrieve(base_url + Path(name).name, None, Path(name).name, folder, progressbar=True))
    except Exception as error:
        raise OSError(
            f"could not download {Path(name).name} ({error}); get it by other means and name its folder with "
            f"--data-dir or {DATA_DIR_VARIABLE}"
        ) from error
