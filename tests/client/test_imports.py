"""`import gradwire` loads what is used, when it is used."""

import json
import subprocess
import sys

HEAVY = ("onnx", "grpc", "jax", "torch", "scipy", "matplotlib")


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after some code."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_alone_loads_nothing_heavy() -> None:
    assert loaded_after("import gradwire").isdisjoint(HEAVY)


def test_connecting_loads_no_frontend() -> None:
    loaded = loaded_after("import gradwire as gw\ngw.connect; gw.spec; gw.local")
    assert loaded.isdisjoint({"jax", "torch", "scipy", "sklearn", "skl2onnx", "matplotlib", "tqdm", "html"})
    assert {name for name in loaded if name.startswith("gradwire.frontends.")} <= {
        "gradwire.frontends.closures",
        "gradwire.frontends.sources",
        "gradwire.frontends.default_client",
    }
    assert not any(name.startswith(("gradwire.pictures", "gradwire_server")) for name in loaded)
