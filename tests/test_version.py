"""What tells figures of one state of the code from those of another."""

import re
import shutil
import subprocess

import deepprism_jax
from deepprism_jax import version
from deepprism_jax.models.efficientnet import EFFICIENTNET_LITE0
from deepprism_jax.models.inception import INCEPTION


def test_a_clone_names_its_commit_and_a_copy_the_version_alone(tmp_path, monkeypatch):
    package = tmp_path / "deepprism_jax"
    package.mkdir()
    shutil.copy(version.__file__, package / "version.py")
    monkeypatch.setattr(version, "__file__", str(package / "version.py"))

    def found():
        version.code_version.cache_clear()
        return version.code_version()

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True)

    assert found() == deepprism_jax.__version__
    git("init", "-q")
    assert found() == deepprism_jax.__version__
    git("add", ".")
    git("commit", "-qm", "first")
    committed = re.escape(deepprism_jax.__version__) + r"\+g[0-9a-f]{7}"
    assert re.fullmatch(committed, found())
    (package / "version.py").write_text("changed")
    assert re.fullmatch(committed + r"\.changed", found())
    version.code_version.cache_clear()


def test_code_of_an_object_is_that_of_its_file():
    assert version.code_of(INCEPTION) == version.code_of(type(INCEPTION)())
    assert version.code_of(INCEPTION) != version.code_of(EFFICIENTNET_LITE0)
    assert version.code_of(object()) == "unknown"
