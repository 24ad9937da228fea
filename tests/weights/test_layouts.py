"""Names in the three layouts, against the official implementation's own list and timm's."""

from __future__ import annotations

import pytest

import fastvit
from fastvit.model.variants import VARIANTS
from fastvit.weights.layouts import key_map, recognize, skeleton
from tests.helpers import tiny
from tests.reference_cases import OFFICIAL_LAYOUT

FORMS = {"train": "train", "reparameterized": "fused"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OFFICIAL_LAYOUT)
def test_official_names_and_shapes(name: str, form: str) -> None:
    config = VARIANTS[name].config
    state = skeleton(config, form).state_dict()
    names = key_map(state, config, "official")
    assert {names[key]: list(v.shape) for key, v in state.items()} == OFFICIAL_LAYOUT[name][FORMS[form]]
    assert recognize(names.values()) == ("official", form)


@pytest.mark.parametrize("form", ["train", "reparameterized"])
@pytest.mark.parametrize("layout", ["native", "official", "timm"])
@pytest.mark.parametrize("attention", [False, True])
def test_there_and_back(layout: str, form: str, attention: bool) -> None:
    source, target = tiny(attention=attention), tiny(attention=attention)
    if form == "reparameterized":
        source, target = fastvit.reparameterize(source), fastvit.reparameterize(target)
    exported = fastvit.export_weights(source, layout)
    assert recognize(exported) == (layout, form)
    loaded = fastvit.load_weights(target, exported)
    assert (loaded.layout, loaded.form, loaded.head) == (layout, form, True)
    for (name, a), b in zip(source.state_dict().items(), target.state_dict().values(), strict=True):
        assert a.equal(b), name


def test_the_fused_form_is_ours_alone() -> None:
    fused = fastvit.fuse(tiny())
    assert recognize(fastvit.export_weights(fused, "native")) == ("native", "fused")
    for layout in ("official", "timm"):
        with pytest.raises(fastvit.UserError, match="reparameterize"):
            fastvit.export_weights(fused, layout)
    with pytest.raises(fastvit.UserError, match="unknown layout 'keras'"):
        fastvit.export_weights(fused, "keras")
