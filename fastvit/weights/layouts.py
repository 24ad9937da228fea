"""Parameter names in three layouts: native (fastvit's own), official (Apple's repository) and timm.

The shapes are the same in all three; only names differ. The official and timm layouts have the forms train and
reparameterized; the fused form exists only in the native layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from fastvit.errors import UserError
from fastvit.fusion import Form, fuse, reparameterize
from fastvit.model.classifier import FastViT
from fastvit.model.config import FastViTConfig

Layout = Literal["native", "official", "timm"]
FORMS = {"train": lambda model: model, "reparameterized": reparameterize, "fused": fuse}

# Each row rewrites a native name; the rows apply in order: (pattern of the native name, official, timm).
_RULES: tuple[tuple[str, str, str], ...] = (
    (r"^stem\.", "patch_embed.", "stem."),
    (r"^expansion\.", "conv_exp.", "final_conv."),
    (r"^head\.", "head.", "head.fc."),
    (r"\bembed\.large\.(?=weight|bias)", "proj.0.lkb_reparam.", "downsample.proj.0.reparam_conv."),
    (r"\bembed\.large\.branches\.0\.", "proj.0.lkb_origin.", "downsample.proj.0.large_conv."),
    (r"\bembed\.large\.branches\.1\.", "proj.0.small_conv.", "downsample.proj.0.small_conv."),
    (r"\bembed\.se\.", "proj.0.se.", "downsample.proj.0.se."),
    (r"\bembed\.point\.", "proj.1.", "downsample.proj.1."),
    (r"\bcpe\.conv\.", "pe.", "pos_emb.pos_enc."),
    (r"\bcpe\.(?=weight|bias)", "reparam_conv.", "pos_emb.reparam_conv."),
    (r"\bffn\.", "convffn.", "mlp."),
    (r"(ffn|mlp)\.conv\.norm\.", r"\1.conv.bn.", r"\1.conv.bn."),
    (r"\btoken_mixer\.(?=weight|bias)", "token_mixer.reparam_conv.", "token_mixer.reparam_conv."),
    (r"\btoken_mixer\.norm\.", "token_mixer.norm.rbr_skip.", "token_mixer.norm.identity."),
    (r"\bmixer\.(?=branches|identity)", "mixer.conv.", "mixer.conv."),
    (r"\bconv\.branches\.0\.", "rbr_conv.0.", "conv_kxk.0."),
    (r"\bconv\.branches\.1\.", "rbr_scale.", "conv_scale."),
    (r"\bconv\.identity\.", "rbr_skip.", "identity."),
    (r"((?:rbr_conv\.0|rbr_scale|lkb_origin|small_conv)\.)norm\.", r"\1bn.", r"\1bn."),
    (r"((?:conv_kxk\.0|conv_scale|large_conv|small_conv)\.)norm\.", r"\1bn.", r"\1bn."),
    (r"^((?:patch_embed|stem)\.\d|conv_exp|final_conv|.*proj\.1)\.conv\.(?=(?:weight|bias)$)",)
    + (r"\1.reparam_conv.",) * 2,
    (r"\bse\.reduce\.", "se.reduce.", "se.fc1."),
    (r"\bse\.expand\.", "se.expand.", "se.fc2."),
    (r"\b(layer_scale\w*)\.gamma$", r"\1", r"\1.gamma"),
)


def _network_indices(config: FastViTConfig) -> dict[tuple[int, str], int]:
    """Return the indices of each stage's parts in the official flat `network`: patch embedding, CPE, and blocks."""
    places: dict[tuple[int, str], int] = {}
    for index, stage in enumerate(config.stages):
        parts = ["embed"] * (index > 0) + ["cpe"] * (stage.cpe > 0) + ["blocks"]
        for part in parts:
            places[index, part] = len(places)
    return places


def _translate(key: str, layout: Layout, places: Mapping[tuple[int, str], int]) -> str:
    column = get_args(Layout).index(layout)
    key = key.removeprefix("backbone.")
    if layout == "official" and (match := re.match(r"stages\.(\d+)\.(embed|cpe|blocks)\.", key)):
        stage, part = int(match[1]), match[2]
        rest = key[match.end() :] if part == "blocks" else key[match.start(2) :]
        key = f"network.{places[stage, part]}.{rest}"
    for row in _RULES:
        key = re.sub(row[0], row[column], key)
    return key


def key_map(keys: Iterable[str], config: FastViTConfig, layout: Layout) -> dict[str, str]:
    """Return the names in a layout by native parameter name, for a train or reparameterized model.

    Args:
        keys: native parameter names.
        config: configuration of the model.
        layout: layout of the names to return.
    """
    if layout == "native":
        return {key: key for key in keys}
    places = _network_indices(config)
    return {key: _translate(key, layout, places) for key in keys}


def recognize(keys: Iterable[str]) -> tuple[Layout, Form]:
    """Return the layout and the form of a state dict, recognized by its parameter names.

    Raises:
        UserError: the names are not those of a FastViT in any known layout.
    """
    names = set(keys)

    def any_starts(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in names)

    if any_starts("patch_embed.0.rbr_", "patch_embed.0.reparam_conv."):
        return "official", "reparameterized" if any_starts("patch_embed.0.reparam_conv.") else "train"
    if any_starts("stem.0.conv_kxk.", "stem.0.reparam_conv."):
        return "timm", "reparameterized" if any_starts("stem.0.reparam_conv.") else "train"
    if any_starts("backbone.stem.0.conv.", "stem.0.conv."):
        if any_starts("backbone.stem.0.conv.branches.", "stem.0.conv.branches."):
            return "native", "train"
        return "native", "reparameterized" if any(".ffn.conv.norm." in name for name in names) else "fused"
    sample = ", ".join(sorted(names)[:3]) or "nothing"
    raise UserError(
        f"these are not FastViT weights in the native, official or timm layout (they contain {sample}, ...); "
        "of MobileCLIP's full models, extract the image encoder first"
    )


def skeleton(config: FastViTConfig, form: Form) -> FastViT:
    """Return a model of the given form on the meta device: names and shapes without storage."""
    with torch.device("meta"):
        return FORMS[form](FastViT(config))


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], names: Mapping[str, str]) -> list[str]:
    """Return the differences between two state dicts, one line per parameter.

    Args:
        expected: state dict of the model.
        found: state dict of the file.
        names: names to show for expected keys; other keys are shown as they are.
    """
    shown = {key: names.get(key, key) for key in expected}
    lines = [f"missing {shown[key]}" for key in expected if key not in found]
    lines += [f"unexpected {key}" for key in found if key not in expected]
    lines += [
        f"{shown[key]} is {tuple(found[key].shape)}, the model has {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    return lines
