"""Files that run code when torch reads them are refused, and none of them runs it."""

from __future__ import annotations

import ctypes
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fastvit
from fastvit.cli.main import main
from fastvit.errors import UserError
from fastvit.export.options import ExportOptions
from fastvit.export.program import build_program
from fastvit.export.target import TARGETS
from fastvit.runtime.artifact import open_artifact
from fastvit.runtime.pt2_archive import OPERATORS
from fastvit.tasks.classification.options import Distillation
from fastvit.tasks.classification.teacher import load_teacher
from tests.helpers import randomize, tiny

Entries = dict[str, bytes]
PROGRAM, WEIGHTS, CONSTANTS = (
    "models/model.json",
    "data/weights/model_weights_config.json",
    "data/constants/model_constants_config.json",
)
SAMPLE = "data/sample_inputs/model.pt"


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._mark),)


def saved(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Bomb(mark), buffer)
    return buffer.getvalue()


def changed(entries: Entries, name: str, change: Callable[[Any], object]) -> None:
    """Change what an entry of JSON contains."""
    content = json.loads(entries[name])
    change(content)
    entries[name] = json.dumps(content).encode()


def graph(program: Any) -> Any:
    return program["graph_module"]["graph"]


def legacy_weights(entries: Entries, mark: Path) -> None:
    entries["data/weights/model.pt"] = saved(mark)


def legacy_constants(entries: Entries, mark: Path) -> None:
    entries["data/constants/model.pt"] = saved(mark)


def pickled_weight(entries: Entries, mark: Path) -> None:
    changed(entries, WEIGHTS, lambda all_: next(iter(all_["config"].values())).update(use_pickle=True))
    entries["data/weights/weight_0"] = saved(mark)


def constant(name: str, content: bytes, entries: Entries, pickled: bool = True) -> None:
    payload = {"path_name": name, "is_param": False, "use_pickle": pickled, "tensor_meta": None}
    changed(entries, CONSTANTS, lambda all_: all_["config"].update(lifted=payload))
    entries[f"data/constants/{name}"] = content


def pickled_constant(entries: Entries, mark: Path) -> None:
    constant("tensor_0", saved(mark), entries)


def opaque_constant(entries: Entries, mark: Path) -> None:
    constant("opaque_obj_0", pickle.dumps(Bomb(mark)), entries)


def opaque_constant_among_the_weights(entries: Entries, mark: Path) -> None:
    payload = {"path_name": "opaque_obj_0/../tensor_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
    changed(entries, CONSTANTS, lambda all_: all_["config"].update(lifted=payload))
    entries["data/constants/tensor_0"] = pickle.dumps(Bomb(mark))


def sample_inputs(entries: Entries, mark: Path) -> None:
    entries[SAMPLE] = saved(mark)


def symbolic_size(entries: Entries, mark: Path) -> None:
    size = {"as_expr": {"expr_str": f"__import__('os').mkdir({str(mark)!r})", "hint": {"as_int": 1}}}
    changed(entries, PROGRAM, lambda program: graph(program)["tensor_values"]["images"]["sizes"].insert(0, size))


def guard(entries: Entries, mark: Path) -> None:
    code = f"__import__('os').mkdir({str(mark)!r}) is None"
    changed(entries, PROGRAM, lambda program: program.update(guards_code=[code]))


def called(target: str, argument: dict[str, Any], entries: Entries) -> None:
    """A node in front that calls a function."""
    node = {
        "target": target,
        "inputs": [{"name": "path", "arg": argument, "kind": 1}],
        "outputs": [{"as_none": True}],
        "metadata": {},
        "is_hop_single_tensor_return": None,
        "name": "called",
    }
    changed(entries, PROGRAM, lambda program: graph(program)["nodes"].insert(0, node))


def function(entries: Entries, mark: Path) -> None:
    called("torch.os.mkdir", {"as_string": str(mark)}, entries)


def operator_of_files(entries: Entries, mark: Path) -> None:
    called("torch.ops.aten.from_file.default", {"as_string": mark.name}, entries)


def unchecked_indices(entries: Entries, mark: Path) -> None:
    """The file says where outside of its memory a tensor is written."""
    called("torch.ops.aten._sparse_coo_tensor_unsafe.default", {"as_int": 1}, entries)


def printing(entries: Entries, mark: Path) -> None:
    called("torch.ops.aten._print.default", {"as_string": "cat"}, entries)


def tower_of_powers(entries: Entries, mark: Path) -> None:
    content = entries[PROGRAM].decode()
    symbol = re.search(r'"expr_str": "([^"]*)"', content)
    assert symbol
    entries[PROGRAM] = content.replace(symbol[1], "Pow(9,Pow(9,Pow(9,9)))").encode()


def forged_line(entries: Entries, mark: Path) -> None:
    entries["evil\nfastvit: warning: all is well"] = b""


def nothing_but_metadata(entries: Entries, mark: Path) -> None:
    del entries["data/weights/model_weights_config.json"]


def name(entries: Entries, mark: Path) -> None:
    old = "conv2d_1"
    new = f"conv2d_1 = 1; __import__('os').mkdir({str(mark)!r}); conv2d_1"
    content = entries[PROGRAM].decode().replace(json.dumps(old), json.dumps(new))
    assert new in content
    entries[PROGRAM] = content.encode()


def enumeration(entries: Entries, mark: Path) -> None:
    """Its module is imported, whatever it is called."""
    module = mark.with_suffix(".py")
    module.write_text(f"import os; os.mkdir({str(mark)!r})")
    context = json.dumps([{"__enum__": True, "fqn": f"{mark.name}:A", "name": "a"}])

    def change(program: Any) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        protocol, tree = json.loads(signature["in_spec"])
        tree["children_spec"][1]["context"] = context
        signature["in_spec"] = json.dumps([protocol, tree])

    changed(entries, PROGRAM, change)


def native_library(entries: Entries, mark: Path) -> None:
    entries["data/aotinductor/model/model.so"] = b"\x7fELF"


def another_program(entries: Entries, mark: Path) -> None:
    entries["models/other.json"] = entries[PROGRAM]
    entries["data/weights/other.pt"] = saved(mark)


def foreign_folder(entries: Entries, mark: Path) -> None:
    entries["../other/data/weights/model.pt"] = saved(mark)


# What a file contains, and the words by which it is refused; None where what would run is never read.
ATTACKS: dict[Callable[[Entries, Path], None], str | None] = {
    legacy_weights: "the entry 'model/data/weights/model.pt'",
    legacy_constants: "the entry 'model/data/constants/model.pt'",
    pickled_weight: r"the tensor 'model\..*' in .*weights_config.json is a pickle",
    pickled_constant: "the tensor 'lifted' in .*constants_config.json is a pickle",
    opaque_constant: "the entry 'model/data/constants/opaque_obj_0'",
    opaque_constant_among_the_weights: "the bytes of the tensor 'lifted' are in .*opaque_obj_0",
    sample_inputs: None,
    symbolic_size: "mkdir.* as expr_str",
    guard: None,
    function: "'torch.os.mkdir' as target",
    operator_of_files: "'torch.ops.aten.from_file.default' as target",
    unchecked_indices: "_sparse_coo_tensor_unsafe.default' as target",
    printing: "aten._print.default' as target",
    tower_of_powers: "Pow.* as expr_str",
    forged_line: r"the entry 'model/evil\\n",
    nothing_but_metadata: "the entry data/weights/model_weights_config.json is missing",
    name: "conv2d_1 = 1.*",
    enumeration: "as in_spec",
    native_library: r"data/aotinductor/.*end in \.aoti\.pt2",
    another_program: "the entry 'model/models/other.json'",
    foreign_folder: r"the entry 'model/\.\./other/data/weights/model.pt'",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as fastvit export writes it."""
    model = randomize(tiny(num_classes=10, preprocessing=fastvit.Preprocessing((32, 32))))
    path = tmp_path_factory.mktemp("plain") / "model.pt2"
    TARGETS["torch"].write(build_program(model, ExportOptions(batch="dynamic")), path)
    return path


def crafted(plain: Path, path: Path, attack: Callable[[Entries, Path], None]) -> Path:
    """A file with an attack in it; what the attack would make is `path` without its suffix."""
    with zipfile.ZipFile(plain) as archive:
        entries = {entry.removeprefix("model/"): archive.read(entry) for entry in archive.namelist()}
    attack(entries, path.with_suffix(""))
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(f"model/{entry}", content)
    return path


def test_what_is_exported_is_opened(plain: Path, tmp_path: Path) -> None:
    """Under another name, too, and with the same outputs as torch's own reader."""
    path = shutil.copy(plain, tmp_path / "renamed.pt2")
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    with torch.inference_mode():
        (expected,) = torch.export.load(plain).module()(torch.from_numpy(images))
    np.testing.assert_array_equal(open_artifact(path)(images)["logits"], expected)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_no_attack_runs(
    plain: Path, tmp_path: Path, attack: Callable[[Entries, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = crafted(plain, tmp_path / "crafted.pt2", attack)
    before = sorted(tmp_path.iterdir())
    if refused := ATTACKS[attack]:
        with pytest.raises(UserError, match=refused) as error:
            fastvit.Predictor(path)
        assert "\n" not in str(error.value)
    else:
        fastvit.Predictor(path)(Image.new("RGB", (32, 32)))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_the_attacks_are_real(plain: Path, tmp_path: Path) -> None:
    """torch's own reader runs most of them."""
    files = [crafted(plain, tmp_path / f"{attack.__name__}.pt2", attack) for attack in ATTACKS]
    code = f"""
import contextlib, torch
for path in {[str(path) for path in files]!r}:
    with contextlib.suppress(Exception):
        torch.export.load(path).module()(torch.zeros(2, 3, 32, 32))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    ran = {path.stem for path in files if path.with_suffix("").exists()}
    assert ran >= {"legacy_weights", "pickled_weight", "sample_inputs", "guard", "symbolic_size", "enumeration"}


def test_entries_that_readers_may_take_differently(plain: Path, tmp_path: Path) -> None:
    twice, packed = tmp_path / "twice.pt2", tmp_path / "packed.pt2"
    shutil.copy(plain, twice)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(twice, "a") as archive:
        archive.writestr(f"model/{PROGRAM}", archive.read(f"model/{PROGRAM}"))
    with pytest.raises(UserError, match=f"the entry 'model/{PROGRAM}' twice"):
        open_artifact(twice)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    claiming = tmp_path / "claiming.pt2"
    content = bytearray(plain.read_bytes())
    with zipfile.ZipFile(plain) as archive:
        sizes = archive.start_dir + 20  # of the first entry, as the directory at the end has them
    content[sizes : sizes + 8] = (2**31).to_bytes(4, "little") * 2
    claiming.write_bytes(content)
    with pytest.raises(UserError, match="claim more bytes than the file has"):
        fastvit.Predictor(claiming)
    with pytest.raises(UserError, match="which is compressed"):
        open_artifact(packed)


def test_commands_refuse_them(plain: Path, photo: Path, tmp_path: Path) -> None:
    """All in one process, as the command runs."""
    files = [crafted(plain, tmp_path / f"{attack.__name__}.pt2", attack) for attack in ATTACKS if ATTACKS[attack]]
    marks = [path.with_suffix("") for path in files]
    code = f"""
from fastvit.cli.main import main
from fastvit.runtime.pt2_archive import OPERATORS
for path in {[str(path) for path in files]!r}:
    print(main(["predict", path, {str(photo)!r}]), main(["eval", path]), main(["robustness", path]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == ["2 2 2"] * len(files)
    assert len(done.stderr.splitlines()) == 3 * len(files), done.stderr
    assert not any(mark.exists() for mark in marks)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_native_code_runs_only_where_it_is_allowed(
    photo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A library that makes a folder when it is loaded."""
    mark, source, library = tmp_path / "mark", tmp_path / "code.c", tmp_path / "model.wrapper.so"
    code = f'#include <sys/stat.h>\n__attribute__((constructor)) void run(void) {{ mkdir("{mark}", 0777); }}\n'
    source.write_text(code)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    path = tmp_path / "model.aoti.pt2"
    metadata = json.dumps({"AOTI_DEVICE_KEY": "cpu"})
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in {
            "data/aotinductor/model/model.wrapper.so": library.read_bytes(),
            "data/aotinductor/model/model.wrapper_metadata.json": metadata,
            "archive_format": "pt2",
            "archive_version": "0",
            ".data/version": "6",
            "byteorder": "little",
        }.items():
            archive.writestr(f"model.aoti/{entry}", content)
    with pytest.raises(UserError, match="contains native code, .*allow_native_code=True"):
        fastvit.Predictor(path)
    for command in (["predict", str(path), str(photo)], ["eval", str(path)], ["robustness", str(path)]):
        assert main(command) == 2
        assert "--allow-native-code" in capfd.readouterr().err
    with pytest.raises(UserError, match="contains native code, which a recipe must not run"):
        load_teacher(Distillation(str(path)))
    assert not mark.exists()
    assert main(["predict", str(path), str(photo), "--allow-native-code"]) == 2
    assert "AOTInductor cannot load" in capfd.readouterr().err
    ctypes.CDLL(str(library))  # some versions of torch stop before they load it
    assert mark.exists(), "the library is real"
    with pytest.raises(UserError, match="does not exist"):
        open_artifact(tmp_path / "none.aoti.pt2")


def test_the_operators_are_torchs() -> None:
    for operator in OPERATORS:
        name, overload = operator.split(".")
        assert isinstance(getattr(getattr(torch.ops.aten, name), overload), torch._ops.OpOverload), operator
