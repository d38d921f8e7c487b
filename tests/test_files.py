import pytest

from deepprism_jax.files import replace_directory, replacing


@pytest.mark.parametrize("leftover", [False, True])
def test_a_directory_is_gone_only_once_another_has_its_name(tmp_path, leftover):
    path, new = tmp_path / "7", tmp_path / "new"
    path.mkdir()
    (path / "old").touch()
    if leftover:
        (tmp_path / "7.deleted" / "part").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        replace_directory(path, new)
    assert (path / "old").exists()
    new.mkdir()
    replace_directory(path, new)
    assert [p.name for p in tmp_path.rglob("*")] == ["7"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "file"
    with replacing(path) as part:
        part.write_text("first")

    def fail():
        with replacing(path) as part:
            part.write_text("sec")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
