"""Derivatives through a renderer that has none: central differences (Section 3.2; Loper and Black, 2014)."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.precision import exact
from air_env.renderers.backends.scene import SceneBatch


class Backend(Protocol):
    """Makes images of three-dimensional scenes."""

    def render(self, scenes: SceneBatch) -> Float[Tensor, "batch 3 height width"]:
        """Images in [0, 1]; the scenes of a batch must not depend on each other."""
        ...


def render_with_gradient(
    renderer: Backend,
    scenes: Callable[..., SceneBatch],
    parameters: Sequence[Float[Tensor, "batch _"]],
    steps: Sequence[float],
) -> Float[Tensor, "batch 3 height width"]:
    """Images with a gradient in the parameters of scenes, whatever the renderer.

    All perturbed scenes are rendered in one call, with the images themselves: ``1 + 2 * columns`` renders a scene, of
    the parameters that need a gradient. Where gradients are switched off, the images are all that is rendered.

    Args:
        renderer: The renderer, of which only `render` is called.
        scenes: Makes scenes of parameters, one for every row. It is called with copies of all rows one after the other,
            so that what else it knows of a scene has to be repeated.
        parameters: What gradients reach: poses, the camera.
        steps: Of each of them, half the distance of two values that are compared; about what moves things by a pixel.

    Raises:
        ValueError: A step is not positive.
    """
    if not all(size > 0 for size in steps):
        raise ValueError(f"steps of finite differences must be positive, got {tuple(steps)}")
    if not torch.is_grad_enabled():
        # A function of autograd is not told.
        return renderer.render(scenes(*parameters))
    return _FiniteDifference.apply(renderer, scenes, tuple(steps), *parameters)  # pyright: ignore


class _FiniteDifference(torch.autograd.Function):
    """Keeps the images' Jacobian of the forward pass, and contracts it in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, renderer: Backend, scenes: Callable[..., SceneBatch], steps: tuple[float, ...], *parameters: Tensor
    ) -> Tensor:
        widths = [part.shape[1] for part in parameters]
        wanted = [needed for needed, width in zip(ctx.needs_input_grad[3:], widths, strict=True) for _ in range(width)]
        whole = torch.cat([part.detach() for part in parameters], 1)
        sizes = whole.new_tensor([size for size, width in zip(steps, widths, strict=True) for _ in range(width)])
        columns = [i for i, is_wanted in enumerate(wanted) if is_wanted]
        shift = torch.diag(sizes)[columns]
        shifts = torch.cat([torch.zeros_like(sizes)[None], shift, -shift])
        rows = (whole + shifts[:, None]).flatten(0, 1)
        images = renderer.render(scenes(*rows.split(widths, 1))).unflatten(0, (len(shifts), len(whole)))
        ahead, behind = images[1:].chunk(2) if columns else (images[1:], images[1:])
        ctx.save_for_backward((ahead - behind) / (2 * sizes[columns].view(-1, 1, 1, 1, 1)))
        ctx.columns, ctx.widths = columns, widths
        return images[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (jacobian,) = ctx.saved_tensors
        gradient = grads[0].new_zeros(len(grads[0]), sum(ctx.widths))
        gradient[:, ctx.columns] = _contracted(jacobian, grads[0])
        parts = gradient.split(ctx.widths, 1)
        needed = ctx.needs_input_grad[3:]
        return None, None, None, *(part if wanted else None for part, wanted in zip(parts, needed, strict=True))


@exact
def _contracted(
    jacobian: Float[Tensor, "parameter batch 3 height width"], gradient: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch parameter"]:
    return torch.einsum("pbchw,bchw->bp", jacobian, gradient)
