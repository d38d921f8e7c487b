"""Traces of chosen steps, and programs that are kept for the next run."""

import gzip
import json
import zlib

import jax
import jax.numpy as jnp
import pytest

from deepprism_jax.training import compilation
from deepprism_jax.training.compilation import (
    cache_folder,
    drop_damaged,
    keep_programs,
)
from deepprism_jax.training.profiling import Profile

RUN = "plugins/profile"


@jax.jit
def square(x):
    return x * x


def steps(profile, count):
    with profile:
        return [profile.traced(n, square, jnp.float32(n)) for n in range(1, count + 1)]


def traces(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


def test_the_chosen_steps_are_traced_and_no_others(tmp_path):
    said = []
    results = steps(Profile(tmp_path / "profile", 3, 4, said.append), 6)
    assert results == [1, 4, 9, 16, 25, 36]
    events, space = traces(tmp_path)
    assert space.name.endswith("_0.xplane.pb")
    assert space.parent == tmp_path / "profile" / RUN / "steps_3_4"
    found = json.loads(gzip.decompress(events.read_bytes()))["traceEvents"]
    numbers = [e["args"]["step_num"] for e in found if e.get("name") == "train"]
    assert numbers == ["3", "4"]
    assert said == [f"a profile is in {tmp_path / 'profile'}"]


def test_none_is_made_where_none_is_asked_for(tmp_path):
    said = []
    steps(Profile(tmp_path, 0, 0, said.append), 3)
    steps(Profile(tmp_path, 7, 9, said.append), 3)
    assert traces(tmp_path) == said == []


def test_what_was_traced_before_a_stop_is_written(tmp_path):
    def fail():
        raise KeyboardInterrupt

    profile = Profile(tmp_path, 2, 9, print)

    def run():
        with profile:
            profile.traced(2, square, jnp.float32(2))
            profile.traced(3, fail)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(traces(tmp_path)) == 2
    profile.traced(4, square, jnp.float32(4))  # one trace is all


def test_a_run_that_goes_on_among_the_steps_traces_the_rest(tmp_path):
    profile = Profile(tmp_path, 2, 5, print)
    with profile:
        for n in (4, 5, 6):
            profile.traced(n, square, jnp.float32(n))
    assert {file.parent.name for file in traces(tmp_path)} == {"steps_4_5"}


def test_without_room_there_is_a_line_and_no_profile(tmp_path):
    said = []
    (tmp_path / "profile").write_text("a file, where a folder should be")
    assert len(steps(Profile(tmp_path / "profile", 1, 2, said.append), 3)) == 3
    (line,) = said
    assert line.startswith("there is no profile: ")


@pytest.fixture
def every_program(monkeypatch):
    monkeypatch.setattr(compilation, "LEAST_SECONDS", 0.0)


@pytest.mark.usefixtures("every_program")
def test_programs_are_kept_and_taken_from_there(tmp_path):
    def compiled():
        program = jax.jit(lambda x: jnp.sin(x) + len("kept"))
        return program(jnp.arange(3.0)).tolist()

    jax.clear_caches()  # a program that another test has made would not be kept
    with keep_programs(tmp_path):
        first = compiled()
    kept = {file: file.stat().st_mtime_ns for file in traces(tmp_path)}
    assert kept
    assert {file.parent for file in kept} == {cache_folder(tmp_path)}
    jax.clear_caches()
    hits = []
    jax.monitoring.register_event_listener(
        lambda event, **_: hits.append(event.rpartition("/")[2])
    )
    with keep_programs(tmp_path):
        assert compiled() == first
    assert "cache_hits" in hits
    assert "cache_misses" not in hits
    assert {file: file.stat().st_mtime_ns for file in traces(tmp_path)} == kept
    # Outside nothing is kept.
    assert jax.config.jax_compilation_cache_dir is None
    jax.jit(lambda x: jnp.cos(x))(jnp.arange(5.0))
    assert set(traces(tmp_path)) == set(kept)


@pytest.mark.usefixtures("every_program")
def test_the_users_own_folder_is_used_where_there_is_one(tmp_path):
    own = tmp_path / "own"
    jax.config.update("jax_compilation_cache_dir", str(own))
    try:
        with keep_programs(tmp_path / "run"):
            assert jax.config.jax_compilation_cache_dir == str(own)
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
    assert not (tmp_path / "run").exists()


def test_processors_do_not_share_programs(tmp_path, monkeypatch):
    here = cache_folder(tmp_path)
    monkeypatch.setattr(compilation, "processor", lambda: "x86_64 flags: none")
    assert cache_folder(tmp_path) != here


def test_an_entry_that_was_cut_short_is_dropped(tmp_path):
    whole = zlib.compress(b"a program" * 1000)
    (tmp_path / "whole-cache").write_bytes(whole)
    (tmp_path / "half-cache").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty-cache").write_bytes(b"")
    (tmp_path / "else").write_bytes(b"")
    drop_damaged(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"whole-cache", "else"}
    drop_damaged(tmp_path / "nowhere")
