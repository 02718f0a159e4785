"""Where to compute: from the name that a person gives to a device."""

import torch


def pick_device(name: str) -> str:
    """The device a person means by its name, or by ``auto``: a GPU if there is one.

    Raises:
        ValueError: The device does not exist or cannot be used.
    """
    if name != "auto":
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {name!r} cannot be used ({str(error).splitlines()[0]}); try cpu") from error
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
