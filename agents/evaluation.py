"""How good an agent is: counts, windows and bounds on scenes it never saw."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from agents.air import AIR
from agents.rollout import Rollout, sample_episodes, unstopped_rollout
from air_env import geometry
from air_env.scenes import SceneDataset
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World

_BATCH = 500


def count_accuracy(agent: AIR, scenes: SceneDataset) -> float:
    """Share of images whose most probable count is right."""
    device = agent.model.log_p_count.device
    return (agent.explain(scenes.images).count == scenes.count.to(device)).float().mean().item()


@torch.no_grad()
def evaluate(
    agent: AIR,
    scenes: SceneDataset,
    *,
    num_samples: int = 20,
    generator: torch.Generator | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, float]:
    """Measures an agent.

    Args:
        agent: The agent.
        scenes: Images and the truth about them; held-out ones, for a fair figure.
        num_samples: Samples of the importance-weighted bound.
        generator: Source of all samples, on the agent's device.
        progress: Called after every batch with its number of scenes.

    Returns:
        A flat dict. Accuracies and IoU are shares; bounds and their parts are nats per image:

        - ``count_accuracy``: of the most probable n; ``count_accuracy_sampled``: of n drawn from q.
        - ``box_iou``: mean intersection over union of the windows in correctly counted scenes with the
          smallest square windows around the objects (windows are square), matched by the Hungarian
          method; ``box_iou_tight``: with the objects' own boxes.
        - ``elbo`` = ``log_likelihood - kl_where - kl_what - kl_count``; ``iwae``: importance-weighted bound.
        - ``confusion_i_j``: share of the scenes with i objects that were counted as j.
    """
    totals: dict[str, list[Tensor]] = {}
    for start in range(0, len(scenes), _BATCH):
        batch = scenes[start : start + _BATCH]
        for name, values in _measure(agent, batch, num_samples, generator).items():
            totals.setdefault(name, []).append(values)
        if progress is not None:
            progress(len(batch))
    metrics = {name: torch.cat(values).double().mean().item() for name, values in totals.items() if name != "count"}
    return metrics | _confusion(scenes.count, torch.cat(totals["count"]).cpu(), agent.model.config.num_steps)


def _measure(
    agent: AIR, scenes: SceneDataset, num_samples: int, generator: torch.Generator | None
) -> dict[str, Tensor]:
    device = agent.model.log_p_count.device
    images, truth = scenes.float_images(device), scenes.count.to(device)
    # Objects that q all but excludes may lie anywhere: nothing holds their latents within bounds.
    world = World(agent.model, scenes)
    envs = AIRSceneVectorEnv(len(scenes), device=device, grad_enabled=False, check_actions=False, world=world)

    def reset() -> None:
        envs.reset(options={"images": images})

    def rollout() -> Rollout:
        reset()
        size = (len(images), agent.model.config.num_steps, agent.latent_dim)
        return unstopped_rollout(agent, envs, torch.randn(size, generator=generator, device=device))

    z = agent.explain(images)
    right = z.count == truth
    boxes, true_boxes = z.boxes(images.shape[-1]).cpu(), scenes.boxes
    squares = geometry.boxes(geometry.from_boxes(true_boxes, images.shape[-1]), images.shape[-1])
    scored = right.cpu() & (scenes.count > 0)
    reset()
    sampled = sample_episodes(agent, envs, generator).count
    first = rollout()
    problem = first.problem()
    q = problem.log_q.exp()
    kl_steps = torch.stack([first.kl_where, first.kl_what], 2)
    # P(n >= i): how much of each step's divergence is paid.
    kl = (kl_steps * q[:, 1:, None].flip(1).cumsum(1).flip(1)).sum(1)
    weights = torch.stack(
        [p.problem(analytic_kl=False).all().logsumexp(1) for p in [first] + [rollout() for _ in range(num_samples - 1)]]
    )
    return {
        "count_accuracy": right,
        "count_accuracy_sampled": sampled == truth,
        "box_iou": _mean_matched_iou(boxes[scored], squares[scored]),
        "box_iou_tight": _mean_matched_iou(boxes[scored], true_boxes[scored]),
        "elbo": problem.elbo(),
        # Each path's weight sums n out, which is never worse than sampling it.
        "iwae": weights.logsumexp(0) - math.log(num_samples),
        "log_likelihood": (q * first.log_p_x).sum(1),
        "kl_where": kl[:, 0],
        "kl_what": kl[:, 1],
        "kl_count": (q * (problem.log_q - agent.model.log_p_count)).sum(1),
        "count": z.count,
    }


def _mean_matched_iou(
    boxes: Float[Tensor, "scene step 4"], true_boxes: Float[Tensor, "scene object 4"]
) -> Float[Tensor, "scene"]:
    """Mean IoU of the best one-to-one matching, for scenes with as many boxes as objects, at least one."""
    corner = torch.maximum(boxes[:, :, None, :2], true_boxes[:, None, :, :2])
    opposite = torch.minimum(boxes[:, :, None, 2:], true_boxes[:, None, :, 2:])
    intersection = (opposite - corner).clamp_min(0).prod(-1)
    area, true_area = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, true_boxes))
    iou = intersection / (area[:, :, None] + true_area[:, None] - intersection)
    means = []
    for scene in iou:
        # Absent boxes are NaN, and last.
        present = scene[~scene.isnan().all(1)][:, ~scene.isnan().all(0)].numpy()
        means.append(present[linear_sum_assignment(present, maximize=True)].mean())
    return torch.tensor(means)


def _confusion(truth: Tensor, count: Tensor, num_steps: int) -> dict[str, float]:
    """Share of the scenes with i objects counted as j."""
    rows = {}
    for i in truth.unique().tolist():
        for j in range(num_steps + 1):
            rows[f"confusion_{i}_{j}"] = (count[truth == i] == j).double().mean().item()
    return rows
