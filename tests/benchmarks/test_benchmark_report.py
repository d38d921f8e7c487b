import sys

import pytest


def test_a_plot_without_matplotlib_says_what_to_install(benchmark_module, monkeypatch):
    report = benchmark_module("report")
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install -e '\.\[bench\]'"):
        report.Report(plot="figures.png").check()


def test_a_file_in_no_folder_is_refused_before_any_work(benchmark_module, tmp_path):
    report = benchmark_module("report")
    report.Report(json=str(tmp_path / "figures.json")).check()
    with pytest.raises(SystemExit, match="no folder"):
        report.Report(json=str(tmp_path / "none" / "figures.json")).check()


def test_both_plots_are_drawn(benchmark_module, tmp_path):
    pytest.importorskip("matplotlib")
    plotting = benchmark_module("plotting")
    bars = {"forward": {"a": 1.0, "b": 20.0}, "backward": {"a": 3.0}}
    plotting.draw_bars(str(tmp_path / "bars.png"), "title", bars)
    curve = plotting.Curve(0, "a: 1.00", [1, 2], [3.0, 6.0])
    panel = plotting.Panel("training", "C", "ms", [curve])
    plotting.draw_panels(str(tmp_path / "panels.png"), "title", [panel] * 3, 2)
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir())
    assert "matplotlib.pyplot" not in sys.modules
