"""Generate the wire code: Python for the daemon and its client, TypeScript for the other client.

Two copies in Python, because the client must not import costd. Both register the same file
descriptors, so that a process may import both.
"""

import re
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {
    "costd.wire.pb": ROOT / "costd/wire/pb",
    "costd_client.pb": ROOT / "clients/python/costd_client/pb",
}
TYPESCRIPT = ROOT / "clients/typescript"
TYPESCRIPT_OPTIONS = (
    "esModuleInterop=true",
    "importSuffix=.js",
    "env=node",
    "forceLong=bigint",  # exact 64 bits
    "oneof=unions-value",
    "outputServices=grpc-js",
    "outputJsonMethods=false",
)


def generate() -> None:
    """Run protoc and rewrite the imports for each target package."""
    sources = sorted(str(path) for path in (ROOT / "proto/costd").rglob("*.proto"))
    well_known = str(resources.files("grpc_tools") / "_proto")
    with tempfile.TemporaryDirectory() as folder:
        code = protoc.main(
            [
                "protoc",
                f"-I{ROOT / 'proto'}",
                f"-I{well_known}",
                f"--python_out={folder}",
                f"--pyi_out={folder}",
                f"--grpc_python_out={folder}",
                *sources,
            ]
        )
        if code:
            raise SystemExit(f"protoc failed with {code}")
        for package, target in TARGETS.items():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            (target / "__init__.py").write_text('"""Generated from proto/ by `make proto`."""\n')
            for made in sorted(Path(folder, "costd").glob("**/v1/*")):
                if package == "costd_client.pb" and made.name.startswith(("fleet", "ratelimit")):
                    continue  # between daemons and coordinators, and between Envoy and daemons
                text = re.sub(
                    r"from costd(\.envoy)?\.v1 import", f"from {package} import", made.read_text()
                )
                (target / made.name).write_text(text)


def generate_typescript() -> None:
    """Run protoc with the plugin that npm installed for the TypeScript client."""
    target = TYPESCRIPT / "src/pb"
    well_known = str(resources.files("grpc_tools") / "_proto")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    code = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{well_known}",
            f"--plugin={TYPESCRIPT / 'node_modules/.bin/protoc-gen-ts_proto'}",
            f"--ts_proto_out={target}",
            f"--ts_proto_opt={','.join(TYPESCRIPT_OPTIONS)}",
            str(ROOT / "proto/costd/v1/admission.proto"),
        ]
    )
    if code:
        raise SystemExit(f"protoc failed with {code}")


if __name__ == "__main__":
    generate()
    generate_typescript()
