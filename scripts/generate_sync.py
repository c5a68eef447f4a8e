"""Generates the synchronous face, `gradwire._sync`, from the asynchronous one, `gradwire._face`.

    python scripts/generate_sync.py            # write the files
    python scripts/generate_sync.py --check    # fail if the files differ from what would be written

A public method of an asynchronous class becomes a method of the same signature. If the synchronous class has
all that its body uses of `self` and waits for, the body is copied without `await`. Otherwise the method
delegates to the asynchronous object: coroutines run on the bridge, asynchronous iterators are iterated there,
and results that have a synchronous class are wrapped in it. What `_sync/bases.py` defines is left to it. A
phrase or example that no docstring takes is an error.

Tests are not generated: most tests of the face are written against the synchronous one, which is what most
users call, and it runs the asynchronous one underneath.
"""

import ast
import copy
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLIENT = Path(__file__).resolve().parent.parent / "client"
HEADER = "# Generated from {sources}\n# by `python scripts/generate_sync.py`: do not edit.\n"

# Synchronous classes, and their modules, of the asynchronous ones.
CLASSES = {
    "AsyncFunction": ("Function", "gradwire._sync.function"),
    "AsyncAccumulator": ("Accumulator", "gradwire._sync.accumulator"),
    "AsyncClient": ("Client", "gradwire._sync.client"),
    "AsyncPrepared": ("Prepared", "gradwire._sync.prepared"),
}
NAMES = {name: new for name, (new, _) in CLASSES.items()} | {
    "AsyncIterator": "Iterator",
    "AsyncIterable": "Iterable",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "_iterate": "iter",
}
# Public names of the asynchronous classes that only the package itself uses.
INTERNAL = {"held", "of", "transforms", "with_evaluator"}
# What docstrings say otherwise, where the two faces differ.
PHRASES = {
    "values and derivatives as coroutines": "values and derivatives",
    "cancelling a call stops": "Ctrl-C stops",
    "or a cancelled call ends": "or Ctrl-C ends",
    "Calls from several tasks are served in the order in which they were made.": (
        "It may be used from several threads: batches count in the order in which they were added."
    ),
    "takes blocks as they arrive in place of": "takes blocks as they arrive, in a thread, in place of",
    "or a function of `Progress`.": "or a function of `Progress`, called in the SDK's own thread.",
    "made by `connect`.": "made by `connect` or `local`. May be used from several threads.",
    "acc.value()": "acc.value",
    "acc.grad()": "acc.grad",
}
# What docstrings say besides.
EXAMPLES = {"value_and_jacobian": "\n\n            scipy.optimize.root(f.value_and_jacobian, x0, jac=True)"}
IMPORTS = """
from concurrent.futures import Future
from gradwire._face.function import AsyncFunction
from gradwire._sync.bases import AccumulatorBase, ClientBase, FunctionBase, PreparedBase
from gradwire._sync.bridge import Bridge, in_thread
"""
PIPELINE = '''
class Pipeline:
    """A function over an open stream. Every call returns a future at once; many may be in flight.

    `future.result()` waits and raises what the call raised; `future.cancel()` stops it.
    """

    def __init__(self, function: AsyncFunction, bridge: Bridge) -> None:
        self._function, self._bridge = function, bridge
'''

Method = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Target:
    """One generated module: its class, what is mirrored, and the attribute with the asynchronous object."""

    name: str
    doc: str
    sources: tuple[tuple[str, str], ...]
    attribute: str


FUNCTION = (
    ("evaluation", "BaseFunction"),
    ("preparation", "SparseFunction"),
    ("function", "AsyncFunction"),
)
TARGETS = {
    "accumulator": Target(
        "Accumulator", "The synchronous accumulator.", (("accumulation", "AsyncAccumulator"),), "_accumulator"
    ),
    "client": Target("Client", "The synchronous client.", (("client", "AsyncClient"),), "_client"),
    "function": Target("Function", "The synchronous function.", FUNCTION, "_function"),
    "prepared": Target(
        "Prepared",
        "The synchronous prepared derivative.",
        (("preparation", "AsyncPrepared"),),
        "_prepared",
    ),
    "pipeline": Target(
        "Pipeline", "Evaluations over one open stream, as futures.", FUNCTION[:1], "_function"
    ),
}


class Unasync(ast.NodeTransformer):
    """Drops `await` and `async`, renames classes and adapts docstrings.

    Args:
        matched: where phrases that were found are added.
    """

    def __init__(self, matched: set[str]) -> None:
        self.matched = matched

    def visit_Await(self, node: ast.Await) -> Any:
        """Return what is awaited."""
        return self.visit(node.value)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> Any:
        """Return a plain loop."""
        return ast.For(**dict(ast.iter_fields(self.generic_visit(node))))

    def visit_AsyncWith(self, node: ast.AsyncWith) -> Any:
        """Return a plain `with`."""
        return ast.With(**dict(ast.iter_fields(self.generic_visit(node))))

    def visit_comprehension(self, node: ast.comprehension) -> Any:
        """Return a plain `for` within a comprehension."""
        node.is_async = 0
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        """Return a plain function, renamed as plain ones are."""
        return self.visit(ast.FunctionDef(**dict(ast.iter_fields(node))))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        """Rename `__aenter__` and its like."""
        node.name = NAMES.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> Any:
        """Rename classes and functions that have a synchronous counterpart."""
        return ast.Name(NAMES.get(node.id, node.id), node.ctx)

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        """Join the two sides of a union that have become one type."""
        self.generic_visit(node)  # Iterable | AsyncIterable names one type twice
        return node.left if ast.dump(node.left) == ast.dump(node.right) else node

    def visit_Constant(self, node: ast.Constant) -> Any:
        """Adapt texts: docstrings and messages."""
        return ast.Constant(adapted(node.value, self.matched)) if isinstance(node.value, str) else node


def adapted(text: str, matched: set[str]) -> str:
    """Return a docstring for the synchronous face; add the phrases that it had to `matched`."""
    text = re.sub(r"\basync (?=with|for)|\bawait |(?<=\bgw\.)aio\.", "", text)
    text = re.sub(r"\bAsync[A-Z]\w+", lambda found: NAMES.get(found[0], found[0]), text)
    for phrase, other in PHRASES.items():
        if phrase in text:
            matched.add(phrase)
            text = text.replace(phrase, other)
    return text


def class_of(module: ast.Module, name: str) -> ast.ClassDef:
    """Return the class of this name."""
    return next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)


def methods_of(node: ast.ClassDef) -> list[Method]:
    """Return the methods of a class, in order."""
    return [one for one in node.body if isinstance(one, Method)]


def attributes_used(node: ast.AST) -> set[str]:
    """Return the attributes of `self`, and the private ones of anything, that code uses."""
    used = (one for one in ast.walk(node) if isinstance(one, ast.Attribute))
    return {one.attr for one in used if one.attr.startswith("_") or ast.unparse(one.value) == "self"}


def waits_for_its_own(method: ast.AST) -> bool:
    """Return whether all that code awaits, enters or iterates asynchronously has a plain counterpart.

    That is what starts at `self`, whose attributes are looked at apart, and what `NAMES` renames; waiting for
    anything else, such as `asyncio.sleep(1)`, would be dropped in silence with its `await`.
    """
    waited: list[ast.expr] = []
    for node in ast.walk(method):
        if isinstance(node, ast.Await):
            waited.append(node.value)
        elif isinstance(node, ast.AsyncFor) or (isinstance(node, ast.comprehension) and node.is_async):
            waited.append(node.iter)
        elif isinstance(node, ast.AsyncWith):
            waited += [item.context_expr for item in node.items]
    return all(root_of(one) in {"self", *NAMES} for one in waited)


def root_of(node: ast.expr) -> str:
    """Return the name that a chain of calls and attributes starts with; "" if it starts with none."""
    while isinstance(node, ast.Call | ast.Attribute):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def call_of(method: Method, attribute: str) -> str:
    """Return the call of the asynchronous method with the arguments of the synchronous one."""
    given = method.args
    parts = [one.arg for one in (*given.posonlyargs, *given.args) if one.arg != "self"]
    parts += [f"*{given.vararg.arg}"] if given.vararg else []
    parts += [
        f"{one.arg}=in_thread(sink)" if one.arg == "sink" else f"{one.arg}={one.arg}"
        for one in given.kwonlyargs
    ]
    parts += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return f"self.{attribute}.{method.name}({', '.join(parts)})"


def delegating(method: Method, attribute: str) -> str:
    """Return the statement that delegates to the asynchronous object."""
    call, returns = call_of(method, attribute), ast.unparse(method.returns) if method.returns else ""
    if any(isinstance(one, ast.Name) and one.id == "property" for one in method.decorator_list):
        return f"return self.{attribute}.{method.name}"
    if method.name == "close":
        return f"self._bridge.finish({call})"
    if isinstance(method, ast.AsyncFunctionDef) and returns in CLASSES:
        return f"return {CLASSES[returns][0]}(self._bridge.run({call}), self._bridge)"
    if isinstance(method, ast.AsyncFunctionDef):
        return f"{'' if returns == 'None' else 'return '}self._bridge.run({call})"
    if returns.startswith("AsyncIterator"):
        return f"return self._bridge.iterate({call})"
    if returns == "Self":
        return f"return type(self)({call}, self._bridge)"
    return f"return {CLASSES[returns][0]}({call}, self._bridge)" if returns in CLASSES else f"return {call}"


def mirrored(method: Method, attribute: str, known: set[str], matched: set[str]) -> Any:
    """Return the synchronous method: translated if all that it uses is known, else delegating.

    Args:
        method: of the asynchronous class.
        attribute: of the synchronous object, with the asynchronous one.
        known: the attributes that the synchronous class has.
        matched: where phrases and examples that were used are added.
    """
    result: Any = copy.deepcopy(method)
    doc = result.body[:1] if ast.get_docstring(method) else []
    if doc and method.name in EXAMPLES:
        matched.add(method.name)
        doc[0].value.value = doc[0].value.value.rstrip() + EXAMPLES[method.name] + "\n        "
    if not (attributes_used(method) <= known and waits_for_its_own(method)):
        result.body = [*doc, *ast.parse(delegating(method, attribute)).body]
    return Unasync(matched).visit(result)


def future(method: Method) -> ast.AST:
    """Return the method of `Pipeline`, which starts the coroutine and does not wait."""
    result = ast.FunctionDef(**dict(ast.iter_fields(copy.deepcopy(method))))
    result.returns = ast.Name(f"Future[{ast.unparse(method.returns) if method.returns else None}]")
    doc = f'"""Do what `Function.{method.name}` does; the future has its result."""'
    result.body = ast.parse(f"{doc}\nreturn self._bridge.submit({call_of(method, '_function')})").body
    return result


def imports_for(code: str, modules: dict[str, ast.Module]) -> str:
    """Return the imports of the source modules, and of what they define, that generated code needs."""
    used = {one.id for one in ast.walk(ast.parse(code)) if isinstance(one, ast.Name)}
    lines: set[str] = set()
    for name, module in {**modules, "": ast.parse(IMPORTS)}.items():
        for node in module.body:
            origin, names = "", []
            if isinstance(node, ast.ImportFrom):
                origin, names = node.module or "", [one.name for one in node.names]
            elif isinstance(node, ast.Import):
                lines |= {f"import {one.name} as {one.asname}" for one in node.names if one.asname in used}
                lines |= {f"import {one.name}" for one in node.names if not one.asname and one.name in used}
            elif isinstance(node, ast.Assign | ast.FunctionDef | ast.ClassDef):
                targets = node.targets if isinstance(node, ast.Assign) else [ast.Name(node.name)]
                origin, names = (
                    f"gradwire._face.{name}",
                    [one.id for one in targets if isinstance(one, ast.Name)],
                )
            for one in names:
                new, place = CLASSES.get(one, (NAMES.get(one, one), origin)) if name else (one, origin)
                if new in used and f"class {new}(" not in code:
                    lines.add(f"from {place} import {new}")
    return "\n".join(sorted(lines))


def generated(target: Target, path: Path, matched: set[str]) -> str:
    """Return the text of one module; add the phrases and examples that it took to `matched`."""
    modules = {
        name: ast.parse((CLIENT / f"gradwire/_face/{name}.py").read_text()) for name, _ in target.sources
    }
    classes = [class_of(modules[name], of) for name, of in target.sources]
    methods = [method for one in classes for method in methods_of(one)]
    if target.name == "Pipeline":
        takes_batches = [m for m in methods if any(a.arg == "batched" for a in m.args.kwonlyargs)]
        bodies = [future(method) for method in takes_batches]
        head = PIPELINE
    else:
        base = class_of(ast.parse((CLIENT / "gradwire/_sync/bases.py").read_text()), f"{target.name}Base")
        own = {method.name for method in methods_of(base)}
        public = [m for m in methods if m.name in NAMES or m.name == "__call__" or not m.name.startswith("_")]
        public = [m for m in public if m.name not in own | INTERNAL]
        known = own | attributes_used(base) | {method.name for method in public}
        bodies = [mirrored(method, target.attribute, known, matched) for method in public]
        doc = adapted(ast.get_docstring(classes[-1], clean=False) or "", matched)
        head = f'class {target.name}({target.name}Base):\n    """{doc}"""\n'
    parts = [ast.unparse(ast.fix_missing_locations(body)) for body in bodies]
    code = head + "".join(f"\n{part}\n".replace("\n", "\n    ") for part in parts)
    sources = ", ".join(f"_face/{name}.py" for name in modules)
    text = f'{HEADER.format(sources=sources)}"""{target.doc}"""\n{imports_for(code, modules)}\n\n{code}'
    for command in (["check", "--select=I", "--fix", "--quiet"], ["format", "--quiet"]):
        run = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(path), "-"]
        text = subprocess.run(run, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main(check: bool) -> int:
    """Write the modules, or report those that differ; return how many faults were found."""
    matched: set[str] = set()
    paths = {name: CLIENT / f"gradwire/_sync/{name}.py" for name in TARGETS}
    texts = {path: generated(TARGETS[name], path, matched) for name, path in paths.items()}
    if unused := [one for one in (*PHRASES, *EXAMPLES) if one not in matched]:
        print(f"found in no docstring: {unused}; change or remove it in PHRASES or EXAMPLES", file=sys.stderr)
        return len(unused)
    stale = [path.name for path, text in texts.items() if check and path.read_text() != text]
    for path, text in texts.items():
        if not check:
            path.write_text(text)
    if stale:
        print(f"not as generated: {', '.join(stale)}; run python scripts/generate_sync.py", file=sys.stderr)
    return len(stale)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
