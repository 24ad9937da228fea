"""`fastvit models`: list the variants of FastViT."""

from __future__ import annotations

from fastvit.console import new_table, print_styled
from fastvit.errors import UserError


def models(pattern: str = "*", /) -> None:
    """List the variants: parameters, multiply-accumulates, published accuracy and latency, released weights.

    Args:
        pattern: names to list, with shell wildcards, such as "sa*"; without a wildcard, names that contain the word.

    Raises:
        UserError: no variant matches.
    """
    from fastvit.model.variants import VARIANTS, list_models
    from fastvit.weights.zoo import tags

    names = list_models(pattern)
    if not names:
        raise UserError(f"no variant matches {pattern!r}; the variants are {', '.join(VARIANTS)}")
    table = new_table(
        "name", "params, M", "fused, M", "GMACs at 256", "top-1", "distilled", "iPhone 12 Pro, ms", "released weights",
        left=(0, 7),
    )  # fmt: skip
    for name in names:
        row = VARIANTS[name]
        published = [f"{value:.1f}" if value else "-" for value in (row.top1, row.top1_distilled, row.iphone_ms)]
        counts = [None if count is None else count / 1e6 for count in (row.params, row.params_fused)]
        sizes = ["-" if value is None else f"{value:.2f}" for value in (*counts, row.gmacs)]
        table.add_row(name, *sizes, *published, ", ".join(tags(name)) or "-")
    print_styled(table)
    print_styled(
        "top-1 (ImageNet-1k, 256 px), latency: published in arXiv 2303.14189; parameters, GMACs: counted by fastvit",
        style="dim",
    )
