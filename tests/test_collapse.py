"""The collapsed train form is the plain one: what the variants' contract does not say of it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import fastvit
from fastvit.model.blocks import ConvFFN, MobileOne
from fastvit.model.layers import ConvNorm, RepConv
from fastvit.model.mixers import RepMixer
from fastvit.training.norms import SyncNorms, freeze_norms
from tests.helpers import randomize, tiny

BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "repmixer": lambda: RepMixer(6, 3, 1e-5),
    "repmixer of kernel 5": lambda: RepMixer(6, 5, 1e-5),
    "stem": lambda: RepConv(3, 6, (3, 1), stride=2),
    "stem, depthwise": lambda: RepConv(6, 6, (3, 1), stride=2, groups=6),
    "point with gelu": lambda: MobileOne(6, 6, (1,)),
    "expansion with squeeze": lambda: MobileOne(6, 12, (3, 1), groups=6, se_ratio=0.25),
    "point": lambda: RepConv(6, 6, (1,)),
    "patch embedding": lambda: RepConv(6, 12, (7, 3), stride=2, groups=6),
    "expansion": lambda: RepConv(6, 12, (3, 1), groups=6),
    "three branches": lambda: RepConv(6, 6, (7, 3, 1), groups=6),
    "one branch": lambda: RepConv(6, 4, (3,)),
    "convnorm": lambda: ConvNorm(6, 6, 7, groups=6),
    "convffn": lambda: ConvFFN(6, 2.0),
    "convnorm, dense": lambda: ConvNorm(6, 4, 3),
}


def trained(block: nn.Module, *batches: Tensor) -> list[Tensor]:
    """Outputs, gradients and buffers after a forward and backward pass of each batch, in train mode."""
    block.train()
    found = []
    for x in batches:
        x = x.clone().requires_grad_()
        out = block(x)
        (out * torch.linspace(-1, 2, out.shape[-1], dtype=out.dtype)).square().sum().backward()
        found += [out.detach(), x.grad]
    return [*found, *(p.grad for p in block.parameters()), *block.buffers()]


def same(mine: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(b.detach().abs().max())))


def images(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64) * 2 + 0.5


@pytest.mark.parametrize("momentum", [0.1, 0.37, None])
@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_over_two_batches(name: str, momentum: float | None) -> None:
    plain = randomize(BLOCKS[name]()).double()
    for norm in plain.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = momentum
    collapsed = fastvit.collapse_branches(copy.deepcopy(plain), "always")
    assert fastvit.collapse_mode(collapsed) == "always"
    channels = (
        next(plain.parameters()).shape[1]
        if name in ("stem", "convnorm, dense", "one branch", "point", "point with gelu")
        else 6
    )
    batches = images(3, channels, 9, 8), images(2, channels, 6, 11)
    same(trained(collapsed, *batches), trained(plain, *batches), 1e-11)


def test_it_is_another_computation() -> None:
    """Or equality would say nothing: neither the scale branch nor a norm runs."""
    ran: list[nn.Module] = []
    model = fastvit.collapse_branches(tiny().train(), "always")
    mixer = model.backbone.stages[0].blocks[0].token_mixer
    assert fastvit.collapse_mode(mixer) == "always"
    for module in mixer.modules():
        module.register_forward_hook(lambda module, *_: ran.append(module))
    model(torch.randn(2, 3, 64, 64))
    assert ran == [mixer]


def test_nothing_but_the_computation_changes(tmp_path: Path) -> None:
    model = randomize(tiny(attention=True))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names, kinds = list(dict(model.named_modules())), [type(module) for module in model.modules()]
    parameters = list(model.parameters())
    assert fastvit.collapse_mode(model) == "never"
    for form in ("always", "auto"):
        assert fastvit.collapse_branches(model, form) is model
        assert fastvit.collapse_mode(model) == form
        assert fastvit.collapse_mode(copy.deepcopy(model)) == form
        assert fastvit.collapse_mode(pickle.loads(pickle.dumps(model))) == form
        assert list(dict(model.named_modules())) == names
        assert [type(module) for module in model.modules()] == kinds
        assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], value) for name, value in before.items())
        model.load_state_dict(before)
        x = torch.randn(2, 3, 64, 64)
        assert fastvit.form(model) == "train"
        fused = fastvit.fuse(model)
        assert fastvit.form(fused) == "fused"
        assert fastvit.verify(model, fused, x).relative < 1e-4
        loaded = fastvit.load(fastvit.save(model, tmp_path / f"{form}.safetensors"))
        assert fastvit.collapse_mode(loaded) == "never", "a file says what a model is, not how it was trained"
        # Not to the last bit: where weights lie in a file, a CPU's library may add up in another order.
        torch.testing.assert_close(loaded.eval()(x), model.eval()(x), rtol=1e-5, atol=1e-7)
    fastvit.collapse_branches(model, "never")
    assert [type(module) for module in model.modules()] == kinds
    assert not any("forward" in vars(module) for module in model.modules())
    with pytest.raises(fastvit.UserError, match="unknown collapse mode 'fast'; choose from never, always, auto"):
        fastvit.collapse_branches(model, "fast")


def test_eval_mode_is_the_plain_form() -> None:
    plain = randomize(tiny(attention=True)).eval()
    collapsed = fastvit.collapse_branches(copy.deepcopy(plain), "always")
    x = torch.randn(2, 3, 64, 64)
    with torch.profiler.profile() as profile:
        assert torch.equal(plain(x), collapsed(x))
    called = {event.key: event.count for event in profile.key_averages()}
    assert not any("fastvit::" in name for name in called)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in plain.modules())
    assert called["aten::conv2d"] == 2 * convolutions, "nothing is computed twice"


def test_frozen_norms_and_norms_of_other_kinds_keep_to_the_plain_form() -> None:
    x = images(3, 6, 8, 8)
    for change in (
        lambda block: freeze_norms(block),
        lambda block: block.norm.eval(),
        lambda block: setattr(block.norm, "eps", 1e-3),
        lambda block: setattr(block, "norm", nn.GroupNorm(2, 6).double()),
    ):
        plain = randomize(RepMixer(6, 3, 1e-5)).double()
        change(plain)
        collapsed = fastvit.collapse_branches(copy.deepcopy(plain), "always")
        outs = []
        for block in (plain, collapsed):
            block.train()
            block.norm.training = plain.norm.training
            outs.append(block(x))
        same([outs[1], *collapsed.buffers()], [outs[0], *plain.buffers()], 1e-12)


def test_a_batch_of_one_pixel_is_refused() -> None:
    block = fastvit.collapse_branches(RepMixer(6, 3, 1e-5).train(), "always")
    with pytest.raises(ValueError, match=r"more than one value per channel in training, got shape \(1, 6, 1, 1\)"):
        block(torch.zeros(1, 6, 1, 1))


def test_autocast_is_no_further_from_the_truth_than_the_plain_form() -> None:
    plain = randomize(tiny(attention=True)).train()
    x = torch.randn(8, 3, 64, 64)
    exact = copy.deepcopy(plain).double()
    reference = exact(x.double())
    errors = {}
    for form in ("never", "always"):
        model = fastvit.collapse_branches(copy.deepcopy(plain), form)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x)
        out.float().square().sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters())
        statistics = max(
            float((a.double() - b.double()).abs().max()) for a, b in zip(model.buffers(), exact.buffers(), strict=True)
        )
        errors[form] = float((out.double() - reference).detach().abs().max()), statistics
    for ours, theirs in zip(errors["always"], errors["never"], strict=True):
        assert ours < 1.5 * theirs + 1e-3


@pytest.mark.parametrize("form", ["always", "auto"])
def test_twenty_steps_of_training(form: str) -> None:
    """In float32, from real initial values with larger layer scales: losses, weights and statistics stay together."""
    torch.manual_seed(0)
    plain = randomize(tiny(attention=True))
    data = [(torch.randn(8, 3, 64, 64), torch.randint(0, 10, (8,))) for _ in range(4)]
    runs = {}
    for name in ("never", form):
        model = fastvit.collapse_branches(copy.deepcopy(plain), name).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        losses = []
        for step in range(20):
            x, y = data[step % len(data)]
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        runs[name] = torch.stack(losses), [p.detach() for p in model.parameters()], list(model.buffers())
    assert runs["never"][0][-4:].mean() < 0.8 * runs["never"][0][:4].mean(), "it learns"
    torch.testing.assert_close(runs[form][0], runs["never"][0], rtol=2e-3, atol=2e-3)
    for kind in (1, 2):
        for ours, theirs in zip(runs[form][kind], runs["never"][kind], strict=True):
            difference = (ours - theirs).double().norm() / (theirs.double().norm() + 1e-2)
            assert difference < 5e-3


def test_moving_averages_are_those_of_the_plain_form() -> None:
    """A copy of a collapsed model that follows its weights and statistics, as `ema` in a recipe makes it."""
    torch.manual_seed(0)
    plain = randomize(tiny(attention=True)).double()
    data = [torch.randn(4, 3, 64, 64, dtype=torch.float64) for _ in range(3)]
    averages = {}
    for form in ("never", "always"):
        model = fastvit.collapse_branches(copy.deepcopy(plain), form).train()
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for x in data:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            average.update_parameters(model)
        averages[form] = average.module.eval()
    same(list(averages["always"].state_dict().values()), list(averages["never"].state_dict().values()), 1e-9)
    moved = [not torch.equal(p, q) for p, q in zip(averages["never"].parameters(), plain.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved), "it learns"
    with torch.no_grad():
        same([averages["always"](data[0])], [averages["never"](data[0])], 1e-9)


@pytest.mark.slow
def test_compiled_without_graph_breaks() -> None:
    torch.compiler.reset()
    eager = fastvit.collapse_branches(randomize(tiny(attention=True)), "always").train()
    compiled = copy.deepcopy(eager)
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 3, 64, 64)
    same(trained(run, x), trained(eager, x), 1e-5)


def test_torch_export_sees_the_operators() -> None:
    model = fastvit.collapse_branches(RepMixer(6, 3, 1e-5).train(), "always")
    program = torch.export.export(model, (torch.randn(2, 6, 8, 8),), strict=True)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"fastvit.depthwise_conv.default", "fastvit.branch_sum.default"} <= called
    assert not any("batch_norm" in name for name in called)


PROCESS = """
import sys, torch
import torch.distributed as distributed
import fastvit
from fastvit.model.blocks import ConvFFN
from fastvit.model.mixers import RepMixer
from fastvit.training.norms import SyncNorms
rank, folder, form = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/store-{form}", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt", weights_only=True)
block = torch.nn.Sequential(RepMixer(6, 3, 1e-5), ConvFFN(6, 2.0)).double().train()
block.load_state_dict(given["state"])
SyncNorms().apply(fastvit.collapse_branches(block, form))
x = given["images"][rank].requires_grad_()
out = block(x)
(out * given["pulls"][rank]).sum().backward()
torch.save([out.detach(), x.grad, *(p.grad for p in block.parameters()), *block.buffers()], f"{folder}/{form}{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_statistics_over_two_processes(tmp_path: Path) -> None:
    """With images of different sizes: as the plain form with synchronized norms has it."""
    block = randomize(nn.Sequential(RepMixer(6, 3, 1e-5), ConvFFN(6, 2.0))).double()
    state = block.state_dict()
    shared = [images(2, 6, 7, 9), images(3, 6, 4, 6)]
    pulls = [torch.randn_like(one) for one in shared]
    torch.save({"state": state, "images": shared, "pulls": pulls}, tmp_path / "given.pt")
    for form in ("never", "always"):
        command = [sys.executable, "-c", PROCESS]
        processes = [
            subprocess.Popen([*command, str(rank), str(tmp_path), form], stderr=subprocess.PIPE, text=True)
            for rank in (0, 1)
        ]
        for process in processes:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
    plain, collapsed = (
        [torch.load(tmp_path / f"{form}{rank}.pt", weights_only=True) for rank in (0, 1)]
        for form in ("never", "always")
    )
    # Each process has its own share of a parameter's gradient, and DDP adds them up.
    parameters = slice(2, 2 + len(list(block.parameters())))
    added = [[a + b for a, b in zip(*(made[parameters] for made in both), strict=True)] for both in (collapsed, plain)]
    same(*added, 1e-10)
    for ours, theirs in zip(collapsed, plain, strict=True):
        for tensors in (ours, theirs):
            del tensors[parameters]
        same(ours, theirs, 1e-10)


def test_statistics_over_one_process_that_is_alone(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        plain = randomize(RepConv(6, 6, (3, 1), groups=6)).double()
        collapsed = SyncNorms().apply(fastvit.collapse_branches(copy.deepcopy(plain), "always"))
        assert fastvit.collapse_mode(collapsed) == "always"
        x = images(3, 6, 8, 8)
        same(trained(collapsed, x), trained(plain, x), 1e-11)
    finally:
        torch.distributed.destroy_process_group()


def test_a_block_of_somebody_elses_keeps_to_its_own_forward() -> None:
    class Doubled(RepConv):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    plain = randomize(Doubled(6, 6, (3, 1), groups=6)).double()
    collapsed = fastvit.collapse_branches(copy.deepcopy(plain), "always")
    x = images(3, 6, 8, 8)
    same(trained(collapsed, x), trained(plain, x), 1e-11)
