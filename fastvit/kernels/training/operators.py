"""Operators with gradients that torch.compile and torch.export can trace; without tracing they are called directly.

A call of torch.library's custom operator passes the dispatcher in Python several times. On a CPU that is 2 to 5 % of a
training step of T8 at 64 px (batch 64, two cores of an Intel Xeon, torch 2.14.1, 2026-11-26).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Keep = Callable[[Any, tuple[Any, ...], Any], None]


class Operator:
    """Function of tensors that is also the operator `fastvit::NAME`.

    Arguments are positional; the first one is a tensor or a list of tensors.

    Args:
        function: implementation, which neither changes nor returns its arguments. Its annotations define the schema.
        name: name of the operator.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._direct = function
        self._definition = torch.library.custom_op(f"fastvit::{name}", function, mutates_args=())
        self._registered = getattr(torch.ops.fastvit, name).default
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        return (self._direct if _unseen(arguments[0]) else self._registered)(*arguments)

    def register_fake(self, fake: Callable[..., Any]) -> Callable[..., Any]:
        """Register a function that returns outputs without values, as torch.library does."""
        self._definition.register_fake(fake)
        return fake

    def register_autograd(self, back: Callable[..., tuple[Any, ...]], setup_context: Keep) -> None:
        """Register the gradient, as torch.library does; `back` returns a list of gradients for a list of tensors."""
        self._definition.register_autograd(back, setup_context=setup_context)
        self._direct = _differentiable(self._direct, back, setup_context)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Decorate a function to make it an `Operator`."""
    return lambda function: Operator(function, name)


def _unseen(first: Any) -> bool:
    """Return whether the call is not traced: the tensors are ordinary ones, and no compiler or exporter runs."""
    one = first[0] if isinstance(first, (list, tuple)) else first
    return type(one) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()


def _differentiable(
    function: Callable[..., Any], back: Callable[..., tuple[Any, ...]], keep: Keep
) -> Callable[..., Any]:
    """Return the function with its gradient. Autograd tracks the tensors of a list only as separate arguments."""

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, listed: int | None, *flat: Any) -> Any:
            arguments = flat if listed is None else (list(flat[:listed]), *flat[listed:])
            output = function(*arguments)
            keep(ctx, arguments, output)
            ctx.listed = listed is not None
            return output

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
            first, *others = back(ctx, *grads)
            return (None, *first, *others) if ctx.listed else (None, first, *others)

    def call(first: Any, *others: Any) -> Any:
        if isinstance(first, (list, tuple)):
            return Differentiable.apply(len(first), *first, *others)
        return Differentiable.apply(None, first, *others)

    return call
