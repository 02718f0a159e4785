"""Derivatives through a renderer that has none: central differences (Section 3.2; Loper and Black, 2014)."""

from dataclasses import replace
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from air_env.renderers.three_d.scene import SceneBatch


class Renderer3D(Protocol):
    """Whatever makes images of scenes."""

    def render(self, scenes: SceneBatch) -> Float[Tensor, "batch 3 height width"]:
        """Images in [0, 1]; the scenes of a batch must not depend on each other."""
        ...


def render_with_gradient(
    renderer: Renderer3D, scenes: SceneBatch, *, step: float = 0.15, yaw_step: float | None = None
) -> Float[Tensor, "batch 3 height width"]:
    """Images with a gradient in the positions and turns of the objects, whatever the renderer.

    All perturbed scenes are rendered in one call, with the images themselves: ``1 + 2 * 3 * objects`` renders a scene
    where positions and turns both need gradients. What needs none is not perturbed.

    Args:
        renderer: The renderer, of which only `render` is called.
        scenes: The scenes; gradients reach ``position`` and ``yaw``.
        step: Half the distance of two positions that are compared, in the scene's unit; about a pixel.
        yaw_step: The same in radians; by default the same number.

    Raises:
        ValueError: A step is not positive.
    """
    steps = (step, step if yaw_step is None else yaw_step)
    if not all(size > 0 for size in steps):
        raise ValueError(f"steps of finite differences must be positive, got {steps}")
    return _FiniteDifference.apply(scenes.position, scenes.yaw, renderer, scenes, steps)  # pyright: ignore


class _FiniteDifference(torch.autograd.Function):
    """Keeps the images' Jacobian of the forward pass, and contracts it in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, position: Tensor, yaw: Tensor, renderer: Renderer3D, scenes: SceneBatch, steps: tuple[float, float]
    ) -> Tensor:
        scenes = scenes.map(Tensor.detach)
        pose = torch.cat([scenes.position, scenes.yaw[..., None]], -1).flatten(1)
        objects = scenes.kind.shape[1]
        size = pose.new_tensor([steps[0], steps[0], steps[1]]).repeat(objects)
        wanted = [ctx.needs_input_grad[0]] * 2 + [ctx.needs_input_grad[1]]
        columns = [i for i, is_wanted in enumerate(wanted * objects) if is_wanted]
        shift = torch.diag(size)[columns]
        shifts = torch.cat([torch.zeros_like(size)[None], shift, -shift])
        poses = (pose + shifts[:, None]).flatten(0, 1).unflatten(1, (objects, 3))
        stacked = scenes.map(lambda part: part.repeat(len(shifts), *[1] * (part.dim() - 1)))
        images = renderer.render(replace(stacked, position=poses[..., :2], yaw=poses[..., 2]))
        images = images.unflatten(0, (len(shifts), len(scenes)))
        ahead, behind = images[1:].chunk(2) if len(columns) else (images[1:], images[1:])
        ctx.save_for_backward((ahead - behind) / (2 * size[columns].view(-1, 1, 1, 1, 1)))
        ctx.columns, ctx.pose_shape = columns, (len(scenes), objects, 3)
        return images[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (jacobian,) = ctx.saved_tensors
        batch, objects, _ = ctx.pose_shape
        gradient = grads[0].new_zeros(batch, objects * 3)
        gradient[:, ctx.columns] = torch.einsum("pbchw,bchw->bp", jacobian, grads[0])
        gradient = gradient.view(ctx.pose_shape)
        position, yaw = ctx.needs_input_grad[:2]
        return gradient[..., :2] if position else None, gradient[..., 2] if yaw else None, None, None, None
