import json

import pytest


def test_a_line_is_of_an_image(benchmark_module):
    denoisers = benchmark_module("denoisers")
    subject = denoisers.Subject(
        name="LDM", parameters=1234, images=4, runs={}, milliseconds={"step": 40.0}
    )
    assert denoisers.row(subject) == ("LDM", "1,234", "40.0", "10.00", "")
    subject.milliseconds["evaluation"] = 10.0
    assert denoisers.row(subject)[-1] == "2.50"


@pytest.mark.slow
def test_small_denoisers_are_measured(benchmark_module, tmp_path):
    denoisers = benchmark_module("denoisers")
    path = tmp_path / "figures.json"
    denoisers.main(
        denoisers.Options(
            kinds=("deepprism",),
            size=(48, 48),
            width=32,
            together=2,
            batch_size=2,
            seconds=0.0,
            bursts=1,
            json=str(path),
        )
    )
    rows = json.loads(path.read_text())["rows"]
    assert [row["images"] for row in rows] == [2, 1, 2]
    assert all(row["milliseconds"]["step"] > 0 for row in rows)
