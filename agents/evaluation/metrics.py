"""How good an agent is: counts, windows and bounds on scenes it never saw."""

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from air_env import geometry
from air_env.explanation import DrawnExplanation, Explanation
from air_env.model import SceneModel
from air_env.renderers.backends import KINDS, Kind
from air_env.scenes import SceneDataset
from air_env.vector_env import AIRSceneVectorEnv
from air_env.world import World

from ..inference.agent import Agent
from ..inference.episodes import sample_episodes
from ..inference.rollout import Rollout, unstopped_rollout
from .identity import Reader
from .photographs import explained_shares

MEDIANS = ("box_iou_tight",)
"""Metrics whose median is told beside their mean."""
_BATCH = 500


def count_accuracy(
    agent: Agent, scenes: SceneDataset, num_steps: int | None = None, *, starts: int | None = None
) -> float:
    """Share of images whose count is right; for ``num_steps`` and ``starts``, see `Agent.explain`.

    Raises:
        ValueError: No count is known.
    """
    scenes = scenes.counted_only("count accuracy")
    z = agent.explain(scenes.images, num_steps, starts=starts)
    return (z.count.cpu() == scenes.count.cpu()).float().mean().item()


def accuracies(agent: Agent, scenes: SceneDataset) -> dict[str, float]:
    """``count_accuracy``, and ``identity_accuracy`` where objects are three-dimensional, without any bound.

    Of explanations with one start, which are quick: those of the finished agent may be better. Without truth, what
    `compare` gives.
    """
    if not scenes.counted.any():
        return averages([compare(agent.explain(scenes.images, starts=1), scenes)])
    if not (kinds := kinds_of(agent.model)):
        return {"count_accuracy": count_accuracy(agent, scenes, starts=1)}
    figures = compare(agent.explain(scenes.images), scenes, kinds)
    return {name: figures[name].float().mean().nan_to_num().item() for name in ("count_accuracy", "identity_accuracy")}


@torch.no_grad()
def evaluate(
    agent: Agent,
    scenes: SceneDataset,
    *,
    num_samples: int = 20,
    generator: torch.Generator | None = None,
    reader: Reader | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, float]:
    """Measures an agent.

    Args:
        agent: The agent.
        scenes: Images and the truth about them; held-out ones, for a fair figure.
        num_samples: Samples of the importance-weighted bound.
        generator: Source of all samples, on the agent's device.
        reader: Reads what is drawn, for ``identity_agreement`` (`air_agents.training.readers`); None leaves it out.
        progress: Called after every batch with its number of scenes.

    Returns:
        A flat dict. Accuracies and IoU are shares; bounds and their parts are nats per image:

        - ``count_accuracy``: of the most probable n; ``count_accuracy_nonempty``: in scenes that are not empty;
          ``count_accuracy_i``: in scenes of i objects; ``count_accuracy_sampled``: of n drawn from q.
        - ``box_iou_tight``: mean intersection over union of the boxes of what is drawn with the objects' own, matched
          by the Hungarian method, in correctly counted scenes that are not empty; ``box_iou_tight_median``: the median
          scene's. ``box_iou``: the mean of attention windows, which are square, with the smallest squares around the
          objects; of the boxes, where outlines are inferred, not windows.
        - ``identity_accuracy``, where ``z_what`` is a category: of the objects of these scenes.
        - ``identity_agreement``, where ``z_what`` is a code and there is a reader: of the same objects, each drawn
          alone, the share that the reader takes for what they are; ``identity_agreement_originals``: the share of
          held-out originals, each alone, which is what perfect reconstructions would reach.
        - ``position_error``, ``rotation_error``, where objects are three-dimensional: mean distance, in the scene's
          unit, and mean turn, in radians, up to the object's symmetry, of the objects whose kind is right;
          ``rotation_error_KIND``: of one kind. Balls have no turn.
        - ``camera_error``, where the camera is inferred: mean distance of its angle from the true one, in radians.
        - ``return``: of the episode that draws the most probable explanation.
        - ``elbo`` = ``log_likelihood - kl_where - kl_what - kl_count``, less ``kl_camera`` or ``kl_background`` where
          ``z_scene`` is one or the other; ``iwae``: importance-weighted bound.
        - ``confusion_i_j``: share of the scenes with i objects that were counted as another number j.
        - Without truth, none of these but bounds and ``return``; instead ``explained``, the mean share of the images
          that is explained (`explained_shares`), and ``mean_count``.

    Raises:
        ValueError: There are no scenes, or no samples.
    """
    if len(scenes) == 0:
        raise ValueError("scenes must be at least one, got none")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    scenes = scenes.to("cpu")
    parts, counts = [], []
    for start in range(0, len(scenes), _BATCH):
        batch = scenes[start : start + _BATCH]
        part, count = _measure(agent, batch, num_samples, generator, reader)
        parts.append(part)
        counts.append(count.cpu())
        if progress is not None:
            progress(len(batch))
    originals = {} if reader is None else {"identity_agreement_originals": reader.accuracy.item()}
    return averages(parts) | originals | _confusion(scenes.count, torch.cat(counts), agent.model.config.num_steps)


def _measure(
    agent: Agent, scenes: SceneDataset, num_samples: int, generator: torch.Generator | None, reader: Reader | None
) -> tuple[dict[str, Tensor], Tensor]:
    """The metrics of scenes, as `averages` takes them, and the most probable counts."""
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
    reset()
    returns = agent.model.log_joint(images, z) - envs.state.log_p_x
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
    kl_scene = "kl_camera" if agent.model.background is None else "kl_background"
    metrics = {
        **compare(z, scenes, kinds_of(agent.model)),
        **({} if reader is None else {"identity_agreement": agreement(z, scenes, agent.model, reader)}),
        **({"count_accuracy_sampled": (sampled == truth)[truth >= 0]} if scenes.counted.any() else {}),
        "return": returns,
        "elbo": problem.elbo(),
        # Each path's weight sums n out, which is never worse than sampling it.
        "iwae": weights.logsumexp(0) - math.log(num_samples),
        "log_likelihood": (q * first.log_p_x).sum(1),
        "kl_where": kl[:, 0],
        "kl_what": kl[:, 1],
        **({kl_scene: first.kl_scene} if agent.model.scene_dim else {}),
        "kl_count": (q * (problem.log_q - agent.model.log_p_count)).sum(1),
    }
    return metrics, z.count


def kinds_of(model: SceneModel) -> tuple[Kind, ...]:
    """The three-dimensional objects that a model's categories are; none if its scenes are flat."""
    return tuple(KINDS[name] for name in model.renderer.kinds if name in KINDS)


def judge(z: DrawnExplanation, scenes: SceneDataset, model: SceneModel) -> dict[str, float]:
    """Accuracies and errors of explanations in terms of a model: means of what `compare` gives."""
    return averages([compare(z, scenes, kinds_of(model))])


def averages(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Means of what `compare` and the like give of several batches, and medians of what is named so in `MEDIANS`."""
    values: dict[str, list[Tensor]] = {}
    for part in parts:
        for name, some in part.items():
            values.setdefault(name, []).append(some.cpu().double())
    metrics = {}
    for name, some in values.items():
        metrics[name] = torch.cat(some).mean().item()
        if name in MEDIANS:
            metrics[f"{name}_median"] = torch.cat(some).median().item()
    return metrics


def compare(z: DrawnExplanation, scenes: SceneDataset, kinds: tuple[Kind, ...] = ()) -> dict[str, Tensor]:
    """Explanations against the truth.

    Args:
        z: The explanations.
        scenes: The truth.
        kinds: What the categories are, where they are three-dimensional objects.

    Returns:
        ``count_accuracy [scene]``, and the same of the scenes that are not empty, and of those of each number of
        objects; over the scenes with objects whose count is right, ``box_iou`` and ``box_iou_tight``; where ``z_what``
        is a category, ``identity_accuracy`` over the objects of these scenes, matched by their boxes. `evaluate` says
        what they are. Where no count is known, ``explained [scene]`` and ``mean_count [scene]``.
    """
    if not scenes.counted.any():
        return {"explained": explained_shares(scenes.float_images(), z), "mean_count": z.count.cpu()}
    side, right = scenes.images.shape[-1], z.count.cpu() == scenes.count
    scored, (rows, steps, objects), tight = matched(z, scenes)
    windows, true_boxes = geometry.to_pixels(z.windows, side).cpu()[scored], scenes.boxes[scored]
    # Windows are square, outlines of objects with poses are not.
    flat = scenes.poses.shape[-1] == 0
    squares = geometry.boxes(geometry.from_boxes(true_boxes, side), side) if flat else true_boxes
    metrics = {
        "count_accuracy": right[scenes.counted],
        "count_accuracy_nonempty": right[scenes.count > 0],
        **{f"count_accuracy_{n}": right[scenes.count == n] for n in scenes.count.unique().tolist() if n >= 0},
        "box_iou": match(windows, squares)[0],
        "box_iou_tight": tight,
    }
    if not z.z_what.is_floating_point():
        labels = scenes.labels[scored][rows, objects]
        recognised = z.z_what.cpu()[scored][rows, steps] == labels
        metrics["identity_accuracy"] = recognised
        if kinds and not flat:
            difference = z.z_where.cpu()[scored][rows, steps] - scenes.poses[scored][rows, objects]
            metrics |= pose_errors(difference[recognised], labels[recognised], kinds)
    if kinds and scenes.z_scene.shape[1] > 0:
        metrics["camera_error"] = (z.z_scene.cpu() - scenes.z_scene).abs()[:, 0]
    return metrics


def matched(
    z: DrawnExplanation, scenes: SceneDataset
) -> tuple[Bool[Tensor, "scene"], Int[Tensor, "3 pair"], Float[Tensor, "counted"]]:
    """Objects of explanations matched with the true ones by their boxes.

    Returns:
        Which scenes are counted right and not empty; and of these what `match` gives: the pairs, and the mean IoU.
    """
    counted = (z.count.cpu() == scenes.count) & (scenes.count > 0)
    iou, pairs = match(z.boxes(scenes.images.shape[-1]).cpu()[counted], scenes.boxes[counted])
    return counted, pairs, iou


def agreement(z: DrawnExplanation, scenes: SceneDataset, model: SceneModel, reader: Reader) -> Bool[Tensor, "object"]:
    """Whether a reader takes the objects of correctly counted scenes, each drawn alone on black, for what they are."""
    counted, (rows, steps, objects), _ = matched(z, scenes)
    z_where, z_what = (part[counted.to(part.device)][rows, steps] for part in (z.z_where, z.z_what))
    alone = Explanation.of_objects(torch.ones_like(z_where[:, :1]), z_where[:, None], z_what[:, None])
    truth, black = scenes[counted], z_where.new_zeros(len(z_where), *model.image_shape)
    read = reader.read(model.renderer.render(black, alone).cpu(), truth.boxes[rows, objects])
    return read == truth.labels[rows, objects]


def pose_errors(
    difference: Float[Tensor, "object pose"], labels: Int[Tensor, "object"], kinds: tuple[Kind, ...]
) -> dict[str, Tensor]:
    """Distances, and turns up to the symmetry of the objects, from differences of poses.

    Returns:
        ``position_error [object]``; ``rotation_error [object]`` of the objects on which one can see a turn, and
        the same of each kind.
    """
    names = {kind: name for name, kind in KINDS.items()}
    metrics = {"position_error": difference[:, :2].norm(dim=1)}
    turns = []
    for k, kind in enumerate(kinds):
        if kind.yaw_symmetry > 0:
            turn = torch.remainder(difference[labels == k, 2], kind.yaw_symmetry)
            turns.append(torch.minimum(turn, kind.yaw_symmetry - turn))
            metrics[f"rotation_error_{names[kind]}"] = turns[-1]
    return metrics | {"rotation_error": torch.cat(turns)} if turns else metrics


def match(
    boxes: Float[Tensor, "scene step 4"], true_boxes: Float[Tensor, "scene object 4"]
) -> tuple[Float[Tensor, "scene"], Int[Tensor, "3 pair"]]:
    """The best one-to-one matching, for scenes with as many boxes as objects, at least one.

    Returns:
        The mean IoU of each scene; and of each matched pair the scene, the step and the object.
    """
    corner = torch.maximum(boxes[:, :, None, :2], true_boxes[:, None, :, :2])
    opposite = torch.minimum(boxes[:, :, None, 2:], true_boxes[:, None, :, 2:])
    intersection = (opposite - corner).clamp_min(0).prod(-1)
    area, true_area = ((b[..., 2:] - b[..., :2]).prod(-1) for b in (boxes, true_boxes))
    iou = intersection / (area[:, :, None] + true_area[:, None] - intersection)
    means, pairs = [], [np.empty((3, 0), np.int64)]
    for i, scene in enumerate(iou):
        # Absent boxes are NaN, and last.
        present = scene[~scene.isnan().all(1)][:, ~scene.isnan().all(0)].numpy()
        steps, objects = linear_sum_assignment(present, maximize=True)
        means.append(present[steps, objects].mean())
        pairs.append(np.stack([np.full_like(steps, i), steps, objects]))
    return torch.tensor(means), torch.from_numpy(np.concatenate(pairs, 1))


def _confusion(truth: Tensor, count: Tensor, num_steps: int) -> dict[str, float]:
    """Share of the scenes with i objects counted as another number j."""
    return {
        f"confusion_{i}_{j}": (count[truth == i] == j).double().mean().item()
        for i in truth[truth >= 0].unique().tolist()
        for j in range(num_steps + 1)
        if i != j
    }
