"""Trained readers of single objects (`air_agents.evaluation.identity`), kept in the user's cache."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import pooch

from air_env.model import SceneModel
from air_env.scenes import ComposedScene, Scene

from ..evaluation.identity import Reader, ReaderConfig, train_reader
from .weights import fill, opened_weights, save_weights

_FORMAT = "air-env reader 1"
"""Of another version, readers are trained again: it rises when their training changes."""
_LOG = logging.getLogger(__name__)


def find_reader(model: SceneModel, scene: Scene, config: ReaderConfig | None = None) -> Reader | None:
    """The reader of what a model draws of a scene's objects: that of the cache, or a new one, which goes there.

    Args:
        model: The generative model.
        scene: Where the images come from.
        config: Settings of the reader.

    Returns:
        None where there is nothing to read: ``z_what`` is a category, or scenes are not composed of glyphs.
    """
    if model.prior_what.categorical or not isinstance(scene, ComposedScene):
        return None
    config = config or ReaderConfig()
    path = Path(pooch.os_cache("air-env"), "readers", f"{_digest(scene, config)}.safetensors")
    if path.is_file():
        try:
            return _load(path, config)
        except ValueError as error:
            _LOG.warning("%s: it is trained again now", error)
    _LOG.info("training a classifier of single objects for identity_agreement; it is kept in %s", path)
    reader = train_reader(scene, config)
    try:
        save_weights(path, reader.state_dict(), _FORMAT, shape=(reader.num_classes, reader.colours))
    except OSError as error:
        _LOG.warning("%s", error)
    return reader


def _load(path: Path, config: ReaderConfig) -> Reader:
    with opened_weights(path, _FORMAT) as weights:
        reader = Reader(config, *weights.settings("shape"))
        fill(reader, weights.tensors)
    return reader.eval()


def _digest(scene: ComposedScene, config: ReaderConfig) -> str:
    """A name for all that a reader's training depends on: glyphs, how they are placed, and settings."""
    digest = hashlib.sha256(f"{_FORMAT} {config}".encode())
    for split in ("train", "test"):
        glyphs = scene.glyphs(split)
        digest.update(glyphs.images.tobytes() + glyphs.labels.tobytes())
        digest.update(replace(scene, counts=(1,)).dataset(split, 64).images.numpy().tobytes())
    return digest.hexdigest()[:16]
