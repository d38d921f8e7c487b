"""A bucket that is a folder: `gs://` paths of etils, Orbax and TensorStore without one.

An object appears whole when its file is closed, and a folder neither appears by itself
nor can be renamed, as in Google Cloud Storage.
"""

import contextlib
import io
import os
import shutil
from pathlib import Path

from etils.epath import backend as backends
from etils.epath import gpath
from orbax.checkpoint._src.path import gcs_utils

from deepprism_jax import paths


class FolderBackend(backends._OsPathBackend):
    """Operations of a bucket, on files below a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def here(self, path):
        text = os.fspath(path)
        assert text.startswith("gs://"), text
        return str(self.folder / text.removeprefix("gs://"))

    def open(self, path, mode):
        if "r" in mode:
            return super().open(self.here(path), mode)
        assert "a" not in mode, "objects cannot be appended to"
        return Upload(Path(self.here(path)), text="b" not in mode)

    def exists(self, path):
        return super().exists(self.here(path))

    def isdir(self, path):
        return super().isdir(self.here(path))

    def listdir(self, path):
        return super().listdir(self.here(path))

    def walk(self, top, *, top_down=True, on_error=None):
        for root, folders, names in os.walk(self.here(top)):
            yield os.path.relpath(root, self.folder), folders, names  # no gs://

    def glob(self, path):
        found = super().glob(self.here(path))
        return [f"gs://{os.path.relpath(each, self.folder)}" for each in found]

    def makedirs(self, path, *, exist_ok=False, mode=None):
        pass

    mkdir = makedirs

    def rmtree(self, path):
        if not self.isdir(path):
            raise FileNotFoundError(path)
        shutil.rmtree(self.here(path))

    def remove(self, path):
        super().remove(self.here(path))

    def rename(self, path, dst):
        raise NotImplementedError("nothing in a bucket is renamed")

    replace = rename

    def stat(self, path):
        return super().stat(self.here(path))


class Upload(io.BytesIO):
    """What is written, which is an object once it is closed."""

    def __init__(self, path, *, text):
        super().__init__()
        self._path, self._text = path, text

    def write(self, data):
        return super().write(data.encode() if self._text else data)

    def close(self):
        if not self.closed:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(self.getvalue())
        super().close()


def install(monkeypatch, folder):
    """Let `gs://` be a folder until the test ends."""
    backend = FolderBackend(folder)

    def kvstore(path):
        return {"driver": "file", "path": backend.here(path)}

    def rmtree(path, *, missing_ok=False):
        with contextlib.suppress(*[FileNotFoundError] if missing_ok else []):
            backend.rmtree(path)

    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", backend)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setattr(gcs_utils, "get_kvstore_for_gcs", kvstore)
    monkeypatch.setattr(gcs_utils, "rmtree", rmtree)
    monkeypatch.setattr(paths, "_need_client", lambda path: None)
