import io
import json
import math
import struct

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event, SessionLog

from deepprism_jax.training.writers import (
    ConsoleWriter,
    JsonlWriter,
    PngWriter,
    TensorBoardWriter,
    Writers,
)

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_time(lines):
    return [{k: v for k, v in line.items() if k != "time"} for line in lines]


def test_jsonl_has_one_object_a_line_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.scalars(1, {"loss": 0.5, "bad": math.inf})
    writer.text(1, "saved")
    writer.images(1, {"grid": PICTURE})
    assert without_time(records(path)) == [  # before the writer is closed
        {"step": 1, "loss": 0.5, "bad": None},
        {"step": 1, "text": "saved"},
    ]
    writer.close()


def test_jsonl_goes_on_after_a_crash_in_mid_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    for step in (1, 2, 3):
        writer.scalars(step, {"loss": float(step)})
    writer.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    writer = JsonlWriter(path, step=2)
    writer.scalars(3, {"loss": 30.0})
    writer.close()
    assert [(r["step"], r["loss"]) for r in records(path)] == [(1, 1), (2, 2), (3, 30)]
    JsonlWriter(path).close()
    assert path.read_text() == ""


def tensorboard_events(directory):
    events = []
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event()
            event.ParseFromString(content[12 : 12 + length])
            events.append(event)
            content = content[16 + length :]
    return events


def test_tensorboard_holds_numbers_and_pictures(tmp_path):
    writer = TensorBoardWriter(tmp_path)
    writer.scalars(5, {"train/loss": 0.25, "bad": math.nan})
    writer.images(5, {"grid": PICTURE})
    writer.text(5, "not there")
    writer.close()
    header, scalar, image = tensorboard_events(tmp_path)
    assert header.file_version
    assert scalar.step == 5
    assert scalar.summary.value[0].tag == "train/loss"
    assert scalar.summary.value[0].simple_value == 0.25
    encoded = image.summary.value[0].image.encoded_image_string
    np.testing.assert_array_equal(Image.open(io.BytesIO(encoded)), PICTURE)


def test_tensorboard_forgets_what_a_resumed_run_repeats(tmp_path):
    TensorBoardWriter(tmp_path).close()
    TensorBoardWriter(tmp_path, step=7).close()
    assert len(list(tmp_path.iterdir())) == 2
    start = tensorboard_events(tmp_path)[-1]
    assert start.session_log.status == SessionLog.START
    assert start.step == 8


def test_png_is_the_picture(tmp_path):
    PngWriter(tmp_path).images(12, {"reconstructions": PICTURE})
    with Image.open(tmp_path / "reconstructions" / "00000012.png") as image:
        np.testing.assert_array_equal(image, PICTURE)


@pytest.mark.parametrize("terminal", [True, False])
def test_console_prints_whole_lines(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    writer = ConsoleWriter(100, step=40, console=console)
    writer.advance(50)
    writer.scalars(50, {"loss": 0.123456, "[psnr]": 20.0, "a" * 60: 1e-7})
    writer.text(50, "saved [/x/y]")
    writer.close()
    assert "step  50  loss 0.1235  [psnr] 20  " + "a" * 60 + " 1e-07" in out.getvalue()
    assert "saved [/x/y]" in out.getvalue()
    assert ("steps/s" in out.getvalue()) == terminal


class Recorder:
    def __init__(self):
        self.calls = []

    def scalars(self, step, values):
        self.calls.append(("scalars", step, dict(values)))

    def images(self, step, pictures):
        self.calls.append(("images", step, list(pictures)))

    def text(self, step, message):
        self.calls.append(("text", step, message))

    def close(self):
        self.calls.append(("close",))


class FullDisk(Recorder):
    def scalars(self, step, values):
        super().scalars(step, values)
        raise OSError(28, "No space left on device")


def test_a_writer_that_fails_is_named_once_and_the_others_go_on():
    full, recorder = FullDisk(), Recorder()
    writers = Writers([full, recorder])
    writers.scalars(1, {"loss": 1.0})
    writers.scalars(2, {"loss": 2.0})
    writers.images(2, {"grid": PICTURE})
    writers.close()
    assert [call[:2] for call in full.calls] == [("scalars", 1)]
    kinds = [call[0] for call in recorder.calls]
    assert kinds == ["scalars", "text", "scalars", "images", "close"]
    assert "FullDisk" in recorder.calls[1][2]
    assert "No space left" in recorder.calls[1][2]


def test_no_writers_is_a_process_that_says_nothing():
    writers = Writers([])
    writers.scalars(1, {"loss": 1.0})
    writers.close()
