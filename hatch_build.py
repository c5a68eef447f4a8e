"""Build hook: generate the Python stubs of the wire into `proto/gradwire_wire/v1`.

The stubs are never committed; they are made from `proto/` whenever the project is
installed (editable or not) or built, so they cannot drift from the `.proto` files.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubBuildHook(BuildHookInterface):
    """Run protoc over every file under `proto/` before anything is packaged."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the stubs; hatchling calls this before it builds a wheel, an sdist or an editable install.

        Raises:
            RuntimeError: protoc failed; it has printed why.
        """
        # Imported here: grpcio-tools is a build requirement, absent at run time.
        import grpc_tools
        from grpc_tools import protoc

        source = Path(self.root) / "proto"
        protos = sorted(str(path) for path in source.rglob("*.proto"))
        well_known = Path(grpc_tools.__file__).parent / "_proto"
        with TemporaryDirectory() as target:
            status = protoc.main(
                [
                    "protoc",
                    f"-I{source}",
                    f"-I{well_known}",
                    f"--python_out={target}",
                    f"--pyi_out={target}",
                    f"--grpc_python_out={target}",
                    *protos,
                ]
            )
            if status != 0:
                raise RuntimeError(f"protoc failed with status {status} on {len(protos)} files")
            install(Path(target) / "gradwire" / "v1", source / "gradwire_wire" / "v1")


def install(generated: Path, package: Path) -> None:
    """Copy stubs into `package`, which is not named after the proto package as protoc would have it."""
    package.mkdir(parents=True, exist_ok=True)
    for module in generated.iterdir():
        text = module.read_text()
        text = re.sub(r"^from gradwire\.v1 import", "from gradwire_wire.v1 import", text, flags=re.MULTILINE)
        # The module that classes name as theirs: unpickling a message must not import the client.
        text = re.sub(r"'gradwire\.v1\.(\w+_pb2)'", r"'gradwire_wire.v1.\1'", text)
        (package / module.name).write_text(text)
    (package / "__init__.py").write_text('"""Generated stubs of the wire, gradwire.v1."""\n')
