"""Make the committed stubs from the .proto files: `make proto`, with grpcio-tools of [dev].

grpcio-tools is pinned at 1.72.2, which writes code for protobuf 6: that imports under protobuf 6
and 7, where newer generators ask their users for protobuf 7.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgeperc.errors import EdgepercError

ROOT = Path(__file__).parent
NAMES = ("perception", "tracking", "control", "search", "errors")
PROTOS = (
    *(f"edgeperc/v1/{name}.proto" for name in NAMES),
    "inference/open_inference.proto",
)


def generate(folder: Path) -> list[Path]:
    """Write the stubs below `folder`; returns their paths. Raises EdgepercError if protoc fails."""
    try:
        import grpc_tools  # type: ignore[import-untyped]
        from grpc_tools import protoc
    except ImportError:
        raise EdgepercError(
            "generating stubs needs grpcio-tools: pip install 'edgeperc[dev]'"
        ) from None
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    googles = Path(grpc_tools.__file__).parent / "_proto"
    roots = [f"--proto_path={root}" for root in (ROOT, googles)]
    if protoc.main(["protoc", *roots, *outputs, *PROTOS]) != 0:
        raise EdgepercError(f"protoc does not accept {', '.join(PROTOS)} in {ROOT}")
    stems = [proto.removesuffix(".proto") for proto in PROTOS]
    ends = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
    stubs = [folder / f"{stem}{end}" for stem in stems for end in ends]
    for stub in stubs:
        _import_from_here(stub)
    return stubs


def _import_from_here(stub: Path) -> None:
    """Mend one line: protoc takes the .proto root for an entry of sys.path; ours is a package."""
    text = stub.read_text(encoding="utf-8")
    for package in ("edgeperc.v1", "inference"):
        text = text.replace(f"from {package} import", f"from edgeperc.proto.{package} import")
    stub.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        print(*generate(ROOT), sep="\n")
    except EdgepercError as error:
        sys.exit(f"error: {error}")
