"""What steps take: by a clock that is set, and counted of networks."""

import dataclasses

import jax
import pytest

from configs import CONFIGS
from deepprism_jax.analysis.chips import peak_operations
from deepprism_jax.training import timing
from deepprism_jax.training.autoencoder import peak
from deepprism_jax.training.autoencoder.peak import ideal_seconds, step_operations
from deepprism_jax.training.autoencoder.trainer import AutoencoderTrainer
from deepprism_jax.training.config import ModelConfig
from deepprism_jax.training.sharding import make_mesh
from deepprism_jax.training.timing import StepTimer


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass where a test says so."""

    class Clock:
        now = 100.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_a_reading_is_of_the_steps_since_the_last(clock):
    timer = StepTimer(batch_size=32, ideal_seconds=lambda step: 0.1 * step)
    clock.now += 60.0  # the compiler
    timer.start(1)
    with timer.waiting():
        clock.now += 0.5
    clock.now += 1.5
    assert timer.read(5) == {
        "step_seconds": 0.5,
        "images_per_second": 64.0,
        "data_wait": 0.25,
        "flops_utilization": pytest.approx(1.0),  # 0.5 s would do, and 0.5 s it took
    }
    clock.now += 1.0
    assert timer.read(6)["data_wait"] == 0.0
    assert timer.read(6) == {}


def test_pauses_are_in_no_figure(clock):
    timer = StepTimer(batch_size=8)
    timer.start(0)
    clock.now += 1.0
    with timer.paused():
        clock.now += 100.0
    assert timer.read(1) == {
        "step_seconds": 1.0,
        "images_per_second": 8.0,
        "data_wait": 0.0,
    }


def test_a_step_that_was_paused_is_in_no_figure(clock):
    timer = StepTimer(batch_size=8)
    timer.start(0)
    clock.now += 1.0
    with timer.paused():
        clock.now += 100.0
    timer.skip()
    assert timer.read(2)["step_seconds"] == 1.0


def test_nothing_is_said_before_the_start(clock):
    timer = StepTimer(batch_size=8)
    clock.now += 1.0
    assert timer.read(3) == {}
    assert not timer.running


def test_peaks_are_those_of_the_very_chip():
    assert peak_operations("TPU v5 lite") == 197e12
    assert peak_operations("TPU v5") == 459e12
    assert peak_operations("NVIDIA A100-SXM4-40GB") == 312e12
    for unknown in ("cpu", "TPU v5 heavy", "NVIDIA H100 PCIe", ""):
        assert peak_operations(unknown) is None


def a_trainer(**loss):
    config = CONFIGS["quickstart"].get_config()
    small = ModelConfig(width=8, blocks=0, norm_groups=4, downsamples=1, conv="dense")
    config = dataclasses.replace(
        config,
        model=small,
        data=dataclasses.replace(config.data, image_size=(16, 16)),
        loss=dataclasses.replace(config.loss, **loss),
        train=dataclasses.replace(config.train, steps=100),
    )
    return AutoencoderTrainer(config, make_mesh())


def test_operations_are_those_of_the_definition():
    operations = step_operations(a_trainer())
    # Forward alone, at 16 px and 8 px: the widest part is 2 * 9 * 8 * 8 a position.
    layer = 2 * 9 * 8 * 8 * 16 * 16
    assert 3 * 4 * layer < operations.autoencoder < 3 * 12 * layer
    assert operations[1:3] == (0.0, 0.0)
    assert operations.at(1) == operations.autoencoder


def test_the_discriminator_counts_from_its_first_step():
    trainer = a_trainer(adversarial_weight=0.5, adversarial_start=0.5)
    operations = step_operations(trainer)
    first = trainer.objective.plan.first_step
    assert operations.discriminator > 0
    assert operations.at(first) == operations.autoencoder
    assert operations.at(first + 1) == sum(operations[:2]) + operations.discriminator


def test_the_ideal_is_of_all_devices_together(monkeypatch):
    trainer = a_trainer()
    assert ideal_seconds(trainer) is None  # nobody publishes the peak of a CPU
    monkeypatch.setattr(peak, "peak_operations", lambda kind: 1e9)
    ideal = ideal_seconds(trainer)
    assert ideal is not None
    images, devices = trainer.config.train.batch_size, jax.device_count()
    assert ideal(1) == pytest.approx(
        step_operations(trainer).autoencoder * images / (devices * 1e9)
    )
