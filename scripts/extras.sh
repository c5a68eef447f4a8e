#!/usr/bin/env bash
# Installs a wheel with each extra alone, in an environment of its own, and runs a check of what the extra adds.
#
#     scripts/extras.sh dist/gradwire-0.1.0-py3-none-any.whl [EXTRA ...]
#
# Not cuda, which needs a GPU and gigabytes, cli, which .ci/run tries with a server, and traces, which is the server
# with what the tests have; torch at the version that the tests are pinned to. Nothing is compiled to bytecode but what is imported: that took most of the time.
set -euo pipefail

wheel=$(realpath "$1")
shift
extras=("${@:-}")
[[ -n "${extras[0]}" ]] || extras=(server jax torch sklearn plot)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "torch==2.13.0" > constraints.txt
python3 -m venv tools
pip=$PWD/tools/bin/pip

cat > server.check << 'PYTHON'
import numpy as np
import gradwire as gw

if __name__ == "__main__":
    with gw.local(workers=1) as client:
        np.testing.assert_array_equal(client.jacobian(lambda x: 2 * x, np.ones(2)), 2 * np.eye(2))
PYTHON

cat > jax.check << 'PYTHON'
import jax.numpy as jnp
import gradwire as gw
import gradwire.jax

f = gw.connect("localhost:1").function(lambda x: jnp.sum(jnp.sin(x)), gw.spec(3))
assert f.model.graph.node
PYTHON

cat > torch.check << 'PYTHON'
import torch
import gradwire as gw
import gradwire.torch

f = gw.connect("localhost:1").function(torch.nn.Linear(3, 2), gw.spec(3, "float32"))
assert f.model.graph.node
PYTHON

cat > sklearn.check << 'PYTHON'
import numpy as np
from sklearn.linear_model import Ridge
import gradwire as gw
import gradwire.sklearn

x = np.arange(6.0).reshape(3, 2)
f = gw.connect("localhost:1").function(Ridge().fit(x, x.sum(1)), gw.spec((4, 2)))
assert f.model.graph.node
PYTHON

cat > plot.check << 'PYTHON'
from pathlib import Path
import numpy as np
import gradwire as gw

f = gw.connect("localhost:1").function(lambda x: np.sin(x) @ x, gw.spec(3))
gw.graph(f).save("graph.png")
assert Path("graph.png").stat().st_size
PYTHON

for extra in "${extras[@]}"; do
    began=$SECONDS
    python3 -m venv --without-pip "$extra"
    "$pip" --python "$extra" install --quiet --disable-pip-version-check --no-compile \
        --constraint constraints.txt "$wheel[$extra]"
    "$extra/bin/python" -P "$extra.check"
    rm -rf "$extra"
    echo "gradwire[$extra] alone: $((SECONDS - began)) s"
done
