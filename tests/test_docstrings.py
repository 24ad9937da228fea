"""Docstrings of the package: complete phrases, with the parameters and the errors; ruff's rules check their form."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "fastvit").rglob("*.py"))
# A first line that begins so leans on the name above it, instead of saying what is returned or done.
FRAGMENTS = re.compile(r"(Of|By|As|For|With|In|On|At|From|The same|What|Whether|How|Those|That|Which|Whose|When)\b")
# A parameter's text that begins so needs the name in front of it, and the help of the command line has none.
LEANING = re.compile(r"^ +(\w+): (of|as|that|which|whose|by|with|for|in|to|from|those|is|are|has|at|on) ", re.MULTILINE)
MANY = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef


def documented(tree: ast.Module) -> Iterator[tuple[str, ast.AST, str]]:
    """Each module, class and function with a docstring: its name, its node, the text."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, Function)) and (text := ast.get_docstring(node)):
            yield getattr(node, "name", "the module"), node, text


def public_functions(tree: ast.Module) -> Iterator[tuple[Function, str]]:
    """Functions of a module and methods of its classes that others call, with their docstrings."""
    for owner in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        for node in owner.body:
            if isinstance(node, Function) and not node.name.startswith("_") and (text := ast.get_docstring(node)):
                yield node, text


def raises(function: Function) -> bool:
    """Whether a function itself raises an error; an abstract one only says that it is one."""
    inner = {id(each) for node in ast.walk(function) if isinstance(node, Function) and node is not function
             for each in ast.walk(node)}  # fmt: skip
    own = [node for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc and id(node) not in inner]
    return any("NotImplementedError" not in ast.dump(node) for node in own)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_complete(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = []
    for name, node, text in documented(tree):
        if not isinstance(node, ast.Module) and FRAGMENTS.match(text):
            wrong.append(f"{name}: begins with a fragment: {text.splitlines()[0]}")
        wrong += [f"{name}: the text of {found[1]} is a fragment" for found in LEANING.finditer(text)]
    for function, text in public_functions(tree):
        arguments = function.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        if len([name for name in names if name not in ("self", "cls")]) >= MANY and "Args:" not in text:
            wrong.append(f"{function.name}: has no Args")
        if raises(function) and "Raises:" not in text:
            wrong.append(f"{function.name}: has no Raises")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_methods_have_docstrings_of_their_own_or_their_base(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    if name.endswith("__main__"):
        return
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} needs {error.name}")
    missing = [
        f"{owner.__name__}.{attribute}"
        for owner in vars(module).values()
        if inspect.isclass(owner) and owner.__module__ == name and not owner.__name__.startswith("_")
        for attribute, value in vars(owner).items()
        if not attribute.startswith("_") and (inspect.isroutine(value) or isinstance(value, property))
        if not inspect.getdoc(getattr(owner, attribute))
    ]
    assert not missing, f"no docstring: {', '.join(missing)}"
