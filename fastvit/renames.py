"""Names that changed in version 0.2.

Files with old names can be loaded. An old option on the command line is an error that contains the new name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Recipe fields by their dotted names, old -> new. The fields of networks are also in the descriptions of weights.
FIELDS = {
    "damaged_limit": "max_unreadable",
    "allow_damaged": "skip_unreadable",
    "accumulate": "accumulate_grad_batches",
    "workers": "num_workers",
    "nodes": "num_nodes",
    "norms": "batchnorm",
    "model.train_form": "model.collapse_branches",
    "optim.clip": "optim.clip_grad",
    "mixing.mixup": "mixup.mixup",
    "mixing.cutmix": "mixup.cutmix",
    "mixing.prob": "mixup.mixup_prob",
    "mixing.switch": "mixup.mixup_switch_prob",
    "mixing.smoothing": "mixup.label_smoothing",
    "detection.ratio": "detection.scale_range",
    "detection.group": "detection.group_by_aspect_ratio",
    "detection.network.width": "detection.network.fpn_channels",
    "detection.network.anchor": "detection.network.anchor_size",
    "detection.network.proposals": "detection.network.post_nms_top_n",
    "detection.network.samples": "detection.network.roi_batch_size",
    "detection.network.score": "detection.network.score_thresh",
    "detection.network.overlap": "detection.network.nms_thresh",
    "detection.network.detections": "detection.network.max_detections",
    "hand_mesh.colour": "hand_mesh.color",  # codespell:ignore colour
    "segmentation.ratio": "segmentation.scale_range",
    "segmentation.largest_share": "segmentation.cat_max_ratio",
    "segmentation.network.width": "segmentation.network.fpn_channels",
    "segmentation.network.head_width": "segmentation.network.head_channels",
    "segmentation.network.window": "segmentation.network.slide_window",
    "hand_mesh.network.width": "hand_mesh.network.head_channels",
}
# Values of renamed fields, by the old name of the field, old -> new.
VALUES = {
    "norms": {"trained": "train", "synchronised": "sync"},  # codespell:ignore synchronised
    "model.train_form": {"plain": "never", "collapsed": "always"},
}
# Forms of a network, in the descriptions of weights, old -> new.
FORMS = {"merged": "reparameterized"}
# Inputs of an artifact, old -> new.
INPUTS = {"normalised": "normalized"}  # codespell:ignore normalised
# Resize modes, in the descriptions of weights and artifacts, old -> new.
RESIZES = {"fit": "resize_shorter"}
# Commands, old -> new.
COMMANDS = {"scenes": "synth scenes", "hands": "synth hands", "report": "compare"}
# Options that are not recipe fields, by command, old -> new.
OPTIONS = {"bench models": {"runtime": "backends"}, "bench train": {"runtime": "configurations"}}
# First lines of the README of synthetic data, old -> new.
TITLES = {"# Made hands": "# Synthetic hands"}
# In the state of a run: callbacks by their classes, and settings that the batches of an epoch depend on.
_CALLBACKS = {"DamagedImages": "UnreadableImages"}
_BATCHES = {"workers": "num_workers", "group": "group_by_aspect_ratio"}
# Files in a run's folder that have another name now.
OLD_FILES = ("damaged.txt",)


def renamed_recipe(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe file, nested, under their new names."""
    renamed: dict[str, Any] = {}
    for name, value in renamed_fields(dict(_leaves(content))).items():
        *sections, last = name.split(".")
        place = renamed
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return renamed


def renamed_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields by their dotted names under the new ones. If the old and the new name are given, the new wins."""
    renamed = {}
    for old, value in fields.items():
        name = FIELDS.get(old, old)
        if name == old:
            renamed[name] = value
        elif name not in fields:
            renamed[name] = VALUES.get(old, {}).get(value, value) if isinstance(value, str) else value
    return renamed


def old_names(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the old names in a recipe file, each with the new one."""
    return {name: FIELDS[name] for name, _ in _leaves(content) if name in FIELDS}


def renamed_network(task: str, options: Any) -> Any:
    """Return the options of a task's network, as the description of weights has them, under their new names."""
    if not isinstance(options, Mapping):
        return options  # there are none, or the description is corrupt, which is an error when it is read
    if isinstance(options.get("network"), Mapping):  # beside the hand model, in a hand mesh regressor
        return {**options, "network": renamed_network(task, options["network"])}
    prefix = f"{task}.network."
    return {FIELDS.get(prefix + name, prefix + name).removeprefix(prefix): value for name, value in options.items()}


def renamed_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that a run resumes from, its recipe and its callbacks under their new names."""
    renamed = dict(state)
    if "recipe" in state:
        renamed["recipe"] = renamed_fields(state["recipe"])
    if "callbacks" in state:
        renamed["callbacks"] = {_CALLBACKS.get(name, name): value for name, value in state["callbacks"].items()}
    return renamed


def renamed_batches(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the batches of an epoch depended on, from the state of a run, under the new names."""
    return {_BATCHES.get(name, name): value for name, value in made.items()}


def new_option(command: str, name: str) -> str | None:
    """Return the new name of an option of the command line; None if it has not changed.

    Args:
        command: name of the command.
        name: old name with hyphens, without the leading ones. The new name has no leading ones either.
    """
    negation = "no-" if name.startswith("no-") else ""
    old = name.removeprefix("no-").replace("-", "_")
    found = OPTIONS.get(command, {}).get(old) or FIELDS.get(old)
    return None if found is None else negation + found.replace("_", "-")


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a recipe by their dotted names; an empty section is one."""
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
