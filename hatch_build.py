"""Build hook: generate the Python stubs of the wire into ``client/gradwire/v1``.

The stubs are never committed; they are made from ``proto/`` whenever the project is
installed (editable or not) or built, so they cannot drift from the ``.proto`` files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StubBuildHook(BuildHookInterface):
    """Run protoc over every file under ``proto/`` before anything is packaged."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # Imported here: grpcio-tools is a build requirement, absent at run time.
        import grpc_tools
        from grpc_tools import protoc

        root = Path(self.root)
        source = root / "proto"
        target = root / "client"
        protos = sorted(str(path) for path in source.rglob("*.proto"))
        package = target / "gradwire" / "v1"
        package.mkdir(parents=True, exist_ok=True)
        well_known = Path(grpc_tools.__file__).parent / "_proto"
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
        (package / "__init__.py").write_text('"""Generated stubs of the wire, gradwire.v1."""\n')
