"""Checks of the content of a .pt2 file, before torch loads it.

torch.export.load unpickles several entries of an archive, evaluates symbolic sizes and guards as Python, writes names
into code that it compiles, and calls whatever function of torch, operator or math a node names. So torch gets a new
archive with the entries that `fastvit export` writes and nothing else.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from fastvit.errors import UserError
from fastvit.weights.description import METADATA_KEY

_PROGRAM = "models/model.json"
# The configurations of tensors, and what the names of the entries with their bytes begin with.
_TENSORS = {
    "data/weights/model_weights_config.json": "data/weights/weight_",
    "data/constants/model_constants_config.json": "data/constants/tensor_",
}
_BYTES = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_PLAIN = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
_METADATA = f"extra/{METADATA_KEY}"
# A pickle of the images that the program was traced with. They are not needed: torch gets an empty entry.
_SAMPLE = "data/sample_inputs/model.pt"

# Fields of the program that are emptied: source locations and code. `Signature.check` checks the inputs instead.
_EMPTIED: dict[str, Any] = {"metadata": {}, "guards_code": [], "treespec_namedtuple_fields": {}}
# Fields of other programs: graphs within graphs, objects of C++ classes, functions as arguments.
_FOREIGN = ("as_graph", "as_custom_obj", "as_operator", "custom_obj", "token")
# Fields that become names in code.
_IDENTIFIERS = ("name", "as_name", "forward_arg_names")
# Names of parameters and modules, devices, numbers that JSON does not have.
_TEXT = re.compile(r"-?[\w.]*", re.ASCII)
_TEXTS = {
    "as_string": re.compile(r"[\w ,.>-]*", re.ASCII),
    "torch_version": re.compile(r"[\w.+]*", re.ASCII),
    # The symbol of an open batch, such as Symbol('s34', positive=True, integer=True).
    "expr_str": re.compile(r"Symbol\('[su]\d{1,9}'(, (positive|integer)=True)*\)", re.ASCII),
}
# The operators of ATen that a program may call, by name and overload. Others of ATen read and write files or print, and
# some trust indices that a file gives them.
_NAMES = (
    "_assert_tensor_metadata.default abs.default adaptive_avg_pool2d.default add.Tensor alias.default",
    "arange.default avg_pool2d.default cat.default clamp.default clamp_min.default clone.default",
    "contiguous.default conv2d.default detach.default div.Tensor exp.default expand.default expand_as.default",
    "eye.default feature_dropout.default flatten.using_ints gelu.default index.Tensor layer_norm.default",
    "lift_fresh_copy.default linalg_vector_norm.default linear.default matmul.default max_pool2d.default mean.dim",
    "mul.Tensor numpy_T.default permute.default pow.Tensor_Scalar relu.default relu_.default reshape.default",
    "rsub.Scalar scaled_dot_product_attention.default select.int sigmoid.default slice.Tensor softmax.int",
    "split_with_sizes.default sqrt.default squeeze.dim stack.default sub.Tensor sum.dim_IntList sym_size.int",
    "to.device to.dtype to.dtype_layout transpose.int unbind.int unflatten.int unsqueeze.default",
    "upsample_bilinear2d.vec upsample_nearest2d.vec view.default",
)
OPERATORS = frozenset(name for line in _NAMES for name in line.split())
_PREFIX = "torch.ops.aten."
# Types of what goes in and comes out: tensors in tuples, lists and dictionaries.
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def read_archive(path: Path) -> tuple[io.BytesIO, str | None]:
    """Return a checked copy of a file, for torch.export.load, and its metadata, None if it has none.

    Raises:
        UserError: the file contains something that `fastvit export` does not write.
        Exception: the file is corrupt; the errors are those of zipfile and json.
    """
    entries = _entries(path)
    if missing := [name for name in (_PROGRAM, *_TENSORS) if name not in entries]:
        raise UserError(f"{path} is corrupt, or was not written by fastvit export: the entry {missing[0]} is missing")
    metadata = entries.pop(_METADATA, None)
    entries[_SAMPLE] = b""
    for name, prefix in _TENSORS.items():
        config = json.loads(entries[name])
        for tensor, payload in config["config"].items():
            if payload["use_pickle"] is not False:
                raise _refusal(path, f"the tensor {tensor[:80]!r} in {name} is a pickle")
            if (data := name.rpartition("/")[0] + "/" + str(payload["path_name"])) not in entries:
                raise _refusal(path, f"the bytes of the tensor {tensor[:80]!r} are in {data[:80]!r}")
            if not data.startswith(prefix):
                raise _refusal(path, f"the tensor {tensor[:80]!r} in {name} is an object of another kind")
        entries[name] = json.dumps(_checked(path, config)).encode()
    entries[_PROGRAM] = json.dumps(_checked(path, json.loads(entries[_PROGRAM]))).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as written:
        for name, content in entries.items():
            written.writestr(f"model/{name}", content)
    archive.seek(0)
    return archive, None if metadata is None else metadata.decode()


def _entries(path: Path) -> dict[str, bytes]:
    """Return the contents by entry name, without the common folder; the sample inputs are not read."""
    entries: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        folder = infos[0].filename.partition("/")[0] + "/"
        for info in infos:
            name, shown = info.filename.removeprefix(folder), f"it contains the entry {info.filename[:80]!r}"
            known = name in (_PROGRAM, _METADATA, _SAMPLE, *_TENSORS, *_PLAIN) or _BYTES.fullmatch(name)
            if not known or info.filename != folder + name:
                raise _refusal(path, shown)
            if name in entries:
                raise _refusal(path, f"{shown} twice")
            if info.compress_type != zipfile.ZIP_STORED:
                raise _refusal(path, f"{shown}, which is compressed")
            entries[name] = b""
        if sum(info.file_size for info in infos) > path.stat().st_size:
            raise _refusal(path, "its entries claim more bytes than the file has")
        for info in infos:
            name = info.filename.removeprefix(folder)
            entries[name] = b"" if name == _SAMPLE else archive.read(info)
    return entries


def _checked(path: Path, value: Any, field: str = "") -> Any:
    """Return a value of the program or of a configuration with some fields emptied; `field` is its key."""
    if isinstance(value, dict):
        if foreign := [key for key in value if key in _FOREIGN or not _TEXT.fullmatch(key)]:
            raise _refusal(path, f"it contains the field {foreign[0][:80]!r}")
        return {key: _EMPTIED[key] if key in _EMPTIED else _checked(path, inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_checked(path, inner, field) for inner in value]
    if isinstance(value, str) and not _is_harmless(field, value):
        raise _refusal(path, f"it contains {value[:80]!r} as {field or 'a value'}")
    return value


def _is_harmless(field: str, text: str) -> bool:
    if field == "target":
        return text.startswith(_PREFIX) and text.removeprefix(_PREFIX) in OPERATORS
    if field in ("in_spec", "out_spec"):
        _, tree = json.loads(text)
        return _is_tree(tree)
    if field in _IDENTIFIERS:
        return text == "" or (text.isidentifier() and text.isascii())
    return _TEXTS.get(field, _TEXT).fullmatch(text) is not None


def _is_tree(tree: Any) -> bool:
    plain = tree["type"] in _CONTAINERS and tree["context"] in (None, "null", "[]")
    return plain and all(_is_tree(child) for child in tree["children_spec"])


def _refusal(path: Path, what: str) -> UserError:
    hint = "; names of AOTInductor packages end in .aoti.pt2" if "data/aotinductor/" in what else ""
    return UserError(
        f"{path} was not opened: {what}. fastvit export does not write this, and loading it could run code{hint}"
    )
