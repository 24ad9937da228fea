"""Labels and units of metrics, on the terminal and in reports."""

from __future__ import annotations

_AP = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
}
METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "loss": "loss",
    "ece": "ECE",
    "real_top1": "ReaL top-1",
    "real_top5": "ReaL top-5",
    **{f"{kind}_{metric}": f"{kind} {label}" for kind in ("box", "mask") for metric, label in _AP.items()},
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "pa_mpjpe": "PA-MPJPE",
    "pa_mpvpe": "PA-MPVPE",
    "mpjpe": "MPJPE",
    "mpvpe": "MPVPE",
    "f5": "F@5 mm",
    "f15": "F@15 mm",
    "auc": "AUC",
}
# Errors in millimetres; other metrics but the loss are fractions.
_LENGTHS = ("pa_mpjpe", "pa_mpvpe", "mpjpe", "mpvpe", "joint error")


def unit(metric: str) -> tuple[float, str]:
    """What to multiply a metric with to show it, and its unit then."""
    return (1.0, "mm") if metric in _LENGTHS else (100.0, "percent")


def as_text(metric: str, value: float) -> str:
    """A metric's value: shares in percent, lengths in mm, the loss as it is, a dash where nothing was measured."""
    if value != value:
        return "-"
    if metric in _LENGTHS:
        return f"{value:.2f} mm"
    return f"{value:.4f}" if metric == "loss" else f"{value:.2%}"
