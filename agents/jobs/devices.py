"""Where to compute: from the name that a person gives to a device."""

import torch


def pick_device(name: str) -> str:
    """The device a person means by its name, or by ``auto``: a GPU if there is one.

    Raises:
        ValueError: The device does not exist or cannot be used.
    """
    if name != "auto":
        try:
            # A device that holds no numbers, meta, is none to compute on.
            torch.zeros((), device=name).item()
        except (RuntimeError, AssertionError, ImportError) as error:
            # Torch goes on with its own build options.
            reason = str(error).splitlines()[0].split(". ")[0]
            raise ValueError(f"device {name!r} cannot be used ({reason}); try cpu, or auto for the best") from error
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
