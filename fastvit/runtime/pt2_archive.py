"""The content of a .pt2 file, checked before torch sees it.

torch.export.load unpickles several entries of an archive, evaluates symbolic sizes and guards as Python, writes names
into code that it compiles, and calls whatever function of torch, operator or math a node names. So torch gets an
archive made anew, of what `fastvit export` writes and of nothing else.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

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
# A pickle of the images that the program was traced with. Nobody needs them: torch gets an empty entry.
_SAMPLE = "data/sample_inputs/model.pt"

# Fields of the program that are emptied: where its nodes come from, and code. What may go in, `Signature.check` says.
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
    "expr_str": re.compile(r"[\w ,=()'+*/-]*", re.ASCII),
}
_OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)", re.ASCII)
# Words of symbolic sizes beside numbers and symbols such as s34.
_SYMBOLIC = re.compile(r"\d+|[su]\d+|Symbol|Integer|Add|Mul|Pow|Max|Min|FloorDiv|Mod|True|False|positive|integer")
# Types of what goes in and comes out: tensors in tuples, lists and dictionaries.
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def read_archive(path: Path) -> tuple[io.BytesIO, str | None]:
    """Read a file for torch.export.load, and what it says of itself, None if nothing.

    Raises:
        UserError: something in it is not written by `fastvit export`.
        Exception: the file is damaged, in ways of zipfile and json.
    """
    entries = _entries(path)
    metadata = entries.pop(_METADATA, None)
    entries[_SAMPLE] = b""
    for name, prefix in _TENSORS.items():
        config = json.loads(entries[name])
        for tensor, payload in config["config"].items():
            if payload["use_pickle"] is not False:
                raise _refusal(path, f"the tensor {tensor!r} in {name} is a pickle")
            if (data := name.rpartition("/")[0] + "/" + str(payload["path_name"])) not in entries:
                raise _refusal(path, f"the bytes of the tensor {tensor!r} are in {data}")
            if not data.startswith(prefix):
                raise _refusal(path, f"the tensor {tensor!r} in {name} is an object of another kind")
        entries[name] = json.dumps(_checked(path, config)).encode()
    entries[_PROGRAM] = json.dumps(_checked(path, json.loads(entries[_PROGRAM]))).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as written:
        for name, content in entries.items():
            written.writestr(f"model/{name}", content)
    archive.seek(0)
    return archive, None if metadata is None else metadata.decode()


def _entries(path: Path) -> dict[str, bytes]:
    """Contents by name, without the folder that all are in; the sample inputs are not read."""
    entries: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        folder = archive.namelist()[0].partition("/")[0] + "/"
        for info in archive.infolist():
            name = info.filename.removeprefix(folder)
            known = name in (_PROGRAM, _METADATA, _SAMPLE, *_TENSORS, *_PLAIN) or _BYTES.fullmatch(name)
            if not known or info.filename != folder + name:
                raise _refusal(path, f"it contains the entry {info.filename}")
            if name in entries:
                raise _refusal(path, f"it contains the entry {info.filename}, which is there twice")
            if info.compress_type != zipfile.ZIP_STORED:
                raise _refusal(path, f"it contains the entry {info.filename}, which is compressed")
            entries[name] = b"" if name == _SAMPLE else archive.read(info)
    return entries


def _checked(path: Path, value: Any, field: str = "") -> Any:
    """A value of the program or of a configuration, with what is emptied; `field` is its key."""
    if isinstance(value, dict):
        if foreign := [key for key in value if key in _FOREIGN or not _TEXT.fullmatch(key)]:
            raise _refusal(path, f"it contains the field {foreign[0]!r}")
        return {key: _EMPTIED[key] if key in _EMPTIED else _checked(path, inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_checked(path, inner, field) for inner in value]
    if isinstance(value, str) and not _is_harmless(field, value):
        raise _refusal(path, f"it contains {value[:80]!r} as {field or 'a value'}")
    return value


def _is_harmless(field: str, text: str) -> bool:
    if field == "target":
        return _is_operator(text)
    if field in ("in_spec", "out_spec"):
        _, tree = json.loads(text)
        return _is_tree(tree)
    if field in _IDENTIFIERS:
        return text == "" or (text.isidentifier() and text.isascii())
    if not _TEXTS.get(field, _TEXT).fullmatch(text):
        return False
    return field != "expr_str" or all(_SYMBOLIC.fullmatch(word) for word in re.findall(r"\w+", text))


def _is_operator(name: str) -> bool:
    """Whether it is one of ATen that reads and writes no files."""
    match = _OPERATOR.fullmatch(name)
    operator = getattr(getattr(torch.ops.aten, match[1], None), match[2], None) if match else None
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    return all(argument.name != "filename" for argument in operator._schema.arguments)


def _is_tree(tree: Any) -> bool:
    plain = tree["type"] in _CONTAINERS and tree["context"] in (None, "null", "[]")
    return plain and all(_is_tree(child) for child in tree["children_spec"])


def _refusal(path: Path, what: str) -> UserError:
    hint = "; names of AOTInductor packages end in .aoti.pt2" if "data/aotinductor/" in what else ""
    return UserError(
        f"{path} was not opened: {what}. fastvit export writes no such thing, and loading it could run code{hint}"
    )
