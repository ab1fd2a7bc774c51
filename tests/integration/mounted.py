"""A ConfigMap or Secret as the kubelet mounts it: all files change at once, by one link."""

import os
import shutil
from pathlib import Path

SECRET_MODE = 0o440 if os.geteuid() == 0 else 0o400
"""A Secret's files are root's, and may be their group's."""


class Mounted:
    """Writes as Kubernetes' AtomicWriter does (pkg/volume/util/atomic_writer.go).

    Each content is a directory of its own; `..data` is a link to the one in force, put in place by
    a rename; each file is a link through it. So no file is ever written over, and only `..data`
    and names that come or go change in the mounted directory.
    """

    def __init__(self, folder, **files):
        self.folder = Path(folder)
        self.folder.mkdir()
        self._number = 0
        self.write(**files)

    def path(self, name):
        return self.folder / name

    def write(self, **files):
        """Replace the content; a name has `_` for its dot. None of them: an optional one is gone."""
        named = {name.replace("_", "."): content for name, content in files.items()}
        before = (self.folder / "..data").resolve() if self._number else None
        self._number += 1
        content = self.folder / f"..2026_11_26_12_00_00.{self._number}"
        content.mkdir()
        for name, text in named.items():
            (content / name).write_bytes(text if isinstance(text, bytes) else text.encode())
            (content / name).chmod(SECRET_MODE if isinstance(text, bytes) else 0o644)
        temporary = self.folder / "..data_tmp"
        temporary.symlink_to(content.name)
        temporary.rename(self.folder / "..data")
        for name in named:
            if not self.path(name).is_symlink():
                self.path(name).symlink_to(Path("..data") / name)
        for link in self.folder.iterdir():
            if not link.name.startswith("..") and link.name not in named:
                link.unlink()
        if before is not None:
            shutil.rmtree(before)
