"""Creating hand mesh regressors by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fastvit.create import create_on_backbone, split_options
from fastvit.errors import UserError
from fastvit.tasks.hand_mesh.hand_file import HandArrays, read_hand
from fastvit.tasks.hand_mesh.model import HandRegressor, regressor_config
from fastvit.tasks.hand_mesh.options import RegressorConfig
from fastvit.tasks.hand_mesh.skeleton import CLASSES


def create_hand_regressor(
    name: str,
    pretrained: bool | str = False,
    in_chans: int = 3,
    drop_path: float = 0.0,
    *,
    hand: str | HandArrays = "procedural",
    preprocessing: Mapping[str, Any] | None = None,
    head: Literal["mlp", "tokens"] = "mlp",
    **options: Any,
) -> HandRegressor:
    """Return a hand mesh regressor on a variant, in train form.

    Args:
        name: name of the variant, see `fastvit.create_model`; weights of a classifier fill the backbone.
        pretrained: pretrained weights, see `fastvit.create_model`.
        in_chans: number of channels of the images.
        drop_path: stochastic depth rate of the last block.
        hand: hand model: "procedural" (the built-in one), "mano", a file (see
            `fastvit.tasks.hand_mesh.hand_file.read_hand`), or the arrays of one.
        preprocessing: fields of `fastvit.Preprocessing` that differ from the regressor's.
        head: "mlp" (the paper's head) or "tokens".
        options: other fields of `fastvit.tasks.hand_mesh.options.RegressorConfig`, and of the backbone's configuration.

    Raises:
        UserError: the variant, tag, option or hand is unknown, or the weights cannot be loaded.
    """
    own, rest = split_options(options, RegressorConfig)
    arrays = read_hand(hand) if isinstance(hand, str) else hand
    if arrays.side != "right":
        raise UserError(
            f"regressors are built on right hands, but {arrays.name} is a left hand; sides='both' predicts both"
        )
    config = regressor_config(arrays, RegressorConfig(head=head, **own))
    backbone = {"in_chans": in_chans, "drop_path": drop_path, **rest}
    model = create_on_backbone(
        HandRegressor, config, name, pretrained, len(CLASSES), CLASSES, preprocessing, **backbone
    )
    if not model.hand.template.is_meta:
        model.take_hand(arrays)
    return model
