"""TV-L1 in plain batched PyTorch, on any device: slow and short; the GPU kernels are checked against it."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as nn
from torch import Tensor

from extractors.flow import tvl1
from extractors.flow.tvl1 import check

ALGORITHM = 2  # raise it with every change of a result
BATCH = 64  # pairs at a time: about 10 MB each at 340×256, and 25 planes more for the median
PAD = 4  # zeros around the image that the warp samples


def version() -> str:
    """Return e.g. "torch-1". Sums and roots differ by device in the last bit; the device is in the cache key anyway."""
    return f"torch-{ALGORITHM}"


def flow(grey: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Compute TV-L1 between consecutive frames, as OpenCV 5.0 does with its defaults.

    grey: (N+1, H, W) uint8; returns (N, H, W, 2) float32, the displacement in x, then y, in pixels. Raises FlowError.
    """
    check(grey)
    frames = torch.from_numpy(np.require(grey, requirements=["C", "W"])).to(device)
    return tv_l1(frames).cpu().numpy()


@torch.inference_mode()
def tv_l1(frames: Tensor) -> Tensor:
    """`flow` for a tensor (N+1, H, W), 0..255, on its own device; returns (N, H, W, 2) float32 there."""
    frames = frames.float()
    return torch.cat([_solve(frames[i : i + BATCH + 1]) for i in range(0, len(frames) - 1, BATCH)])


def _solve(frames: Tensor) -> Tensor:
    return coarse_to_fine(frames, _level)


def coarse_to_fine(frames: Tensor, refine: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Walk the pyramid of `frames` (N+1, H, W) from its smallest level up; returns (N, H, W, 2) px.

    refine: (first (N, h, w), second (N, h, w), field (2, N, h, w)) -> the field, refined on that level.
    """
    sizes = tvl1.levels(frames.shape[1], frames.shape[2])
    pyramid = [frames]
    for size in sizes[1:]:
        pyramid.append(resize(pyramid[-1], size, tvl1.SOURCE_STEP, tvl1.SOURCE_STEP))
    field = frames.new_zeros(2, len(frames) - 1, *sizes[-1])  # u and v
    for (h, w), images in zip(reversed(sizes), reversed(pyramid), strict=True):
        if field.shape[2:] != (h, w):
            steps = field.shape[2] / h, field.shape[3] / w
            field = resize(field.flatten(0, 1), (h, w), *steps).mul_(tvl1.SOURCE_STEP).unflatten(0, (2, -1))
        field = refine(images[:-1], images[1:], field)
    return field.permute(1, 2, 3, 0).contiguous()


def _level(first: Tensor, second: Tensor, field: Tensor) -> Tensor:
    """Refine `field` (2, B, H, W) on one level of the pyramid."""
    _, h, w = first.shape
    stop = tvl1.EPSILON**2 * h * w
    samples = torch.stack([second, *gradient(second)], dim=1)
    dual = field.new_zeros(2, 2, *first.shape)  # [component of the flow, direction]
    for _ in range(tvl1.WARPS):
        warped, ix, iy = warp(samples, field).unbind(1)
        norm = ix * ix + iy * iy
        inverse = torch.where(norm > tvl1.FLAT, 1 / norm, 0)
        rho = warped - ix * field[0] - iy * field[1] - first
        slope = torch.stack([ix, iy])
        error = first.new_full((len(first),), torch.inf)
        for _ in range(tvl1.OUTER):
            active = error > stop  # each pair stops on its own; further steps of a stopped pair are dropped
            if not active.any():
                break
            field = torch.where(active[:, None, None], median(field), field)
            for _ in range(tvl1.INNER):
                active = error > stop
                if not active.any():
                    break
                field, dual, moved = _iterate(field, dual, slope, inverse, rho, active)
                error = torch.where(active, moved, error)
    return field


def _iterate(
    field: Tensor, dual: Tensor, slope: Tensor, inverse: Tensor, rho: Tensor, active: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One primal and one dual step of the pairs in `active` (B,); returns field, dual and Σ|Δu|² (B,)."""
    step = -((rho + (slope * field).sum(0)) * inverse).clamp(-tvl1.CLAMP, tvl1.CLAMP)
    px, py = dual.unbind(1)
    divergence = px - nn.pad(px, (1, 0))[..., :-1] + (py - nn.pad(py, (0, 0, 1, 0))[..., :-1, :])
    change = step * slope + tvl1.THETA * divergence
    moved = (change * change).sum(0).sum(1).sum(1)
    mask = active[:, None, None]
    field = torch.where(mask, field + change, field)
    slopes = torch.stack(
        [nn.pad(field.diff(dim=-1), (0, 1)), nn.pad(field.diff(dim=-2), (0, 0, 0, 1))], dim=1
    )  # forward differences, 0 at the end
    shrink = 1 + tvl1.TAUT * (slopes * slopes).sum(1, keepdim=True).sqrt()
    return field, torch.where(mask, (dual + tvl1.TAUT * slopes) / shrink, dual), moved


def resize(images: Tensor, size: tuple[int, int], step_y: float, step_x: float) -> Tensor:
    """Linear resize of (B, H, W) with a given source step: pixel centres, edges clamped (OpenCV's INTER_LINEAR)."""
    for dim, length, step in ((1, size[0], step_y), (2, size[1], step_x)):
        last = images.shape[dim] - 1
        at = ((torch.arange(length, dtype=torch.float64) + 0.5) * step - 0.5).float().clamp(min=0).to(images.device)
        part = at - at.floor()
        part = part.unsqueeze(-1) if dim == 1 else part
        low, high = (index.clamp(max=last) for index in (at.long(), at.long() + 1))
        images = images.index_select(dim, low) * (1 - part) + images.index_select(dim, high) * part
    return images


def gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences in x and y of (B, H, W); on the border half the one-sided one."""
    across = nn.pad(images, (1, 1, 0, 0), mode="replicate")
    down = nn.pad(images, (0, 0, 1, 1), mode="replicate")
    return (across[..., 2:] - across[..., :-2]) / 2, (down[..., 2:, :] - down[..., :-2, :]) / 2


def cubic(t: Tensor) -> list[Tensor]:
    """Weights of the cubic (A = −0.75) at fraction t, for the taps at −1, 0, 1, 2."""
    a = tvl1.CUBIC_A
    first = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    second, third = (((a + 2) * s - (a + 3)) * s * s + 1 for s in (t, 1 - t))
    return [first, second, third, 1 - first - second - third]


def warp(samples: Tensor, field: Tensor) -> Tensor:
    """Sample (B, K, H, W) at x + u, bicubic, 0 outside; `field` (2, B, H, W)."""
    b, k, h, w = samples.shape
    # Beyond these bounds all taps are zeros for any fraction.
    x = (field[0] + torch.arange(w, device=field.device)).clamp(-3, w + 1)
    y = (field[1] + torch.arange(h, device=field.device)[:, None]).clamp(-3, h + 1)
    x0, y0 = x.floor(), y.floor()
    wide = w + 2 * PAD
    flat = nn.pad(samples, (PAD,) * 4).flatten(2)
    corner = ((y0.long() + PAD - 1) * wide + x0.long() + PAD - 1).flatten(1)
    total = torch.zeros_like(samples)
    across = cubic(x - x0)
    for j, weight in enumerate(cubic(y - y0)):
        line = torch.zeros_like(samples)
        for i in range(4):
            index = (corner + j * wide + i)[:, None].expand(b, k, h * w)
            line += across[i][:, None] * flat.gather(2, index).view(b, k, h, w)
        total += weight[:, None] * line
    return total


def median(field: Tensor) -> Tensor:
    """5×5 median of (2, B, H, W), edges repeated."""
    reach = tvl1.MEDIAN // 2
    padded = nn.pad(field, (reach,) * 4, mode="replicate")
    return padded.unfold(2, tvl1.MEDIAN, 1).unfold(3, tvl1.MEDIAN, 1).flatten(-2).median(-1).values
