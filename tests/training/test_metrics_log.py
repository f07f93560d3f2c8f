"""The log says each step once, whatever was cut back."""

import json

import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from vcinr.training.metrics_log import MetricsLog


def _lines(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def test_rewind_keeps_what_was_said_before(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (10, 20, 30):
            log.write(step, 0, {"loss": 1 / step})
        before = _lines(log)
        log.rewind(20, 0)
        assert _lines(log) == before[:2]
        log.event(20, 1, "rollback", reason="why")
        log.write(30, 1, {"loss": 2.0})
        assert [(line["step"], line["attempt"]) for line in _lines(log)] == [(10, 0), (20, 0), (20, 1), (30, 1)]
        log.rewind(20, 0)  # a resume from a checkpoint of before the rollback: it will happen again
        assert _lines(log) == before[:2]


def test_a_torn_last_line_goes(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(10, 0, {"loss": 1.0})
        with open(log.path, "a") as file:
            file.write('{"step": 11, "att')
        log.rewind(11, 0)
        log.write(11, 0, {"loss": 2.0})
        assert [line["step"] for line in _lines(log)] == [10, 11]


def test_values_that_json_has_no_word_for_are_null(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, 0, {"loss": float("nan"), "other": float("inf")})
    assert _lines(log) == [{"step": 1, "attempt": 0, "loss": None, "other": None}]


def test_inactive_log_writes_nothing(tmp_path):
    with MetricsLog(tmp_path / "none", active=False) as log:
        log.write(1, 0, {"loss": 1.0})
        log.event(1, 0, "rollback")
        log.rewind(0, 0)
    assert not (tmp_path / "none").exists()


def test_tensorboard_gets_scalars_and_is_told_what_to_forget(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(10, 0, {"loss": 0.5})
        log.write(20, 0, {"loss": 0.25})
        log.rewind(10, 0)
        log.write(20, 0, {"loss": 0.125})
    events = [event for path in sorted((tmp_path / "tensorboard").iterdir()) for event in _events(path.read_bytes())]
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert sorted(scalars) == [(10, "loss", 0.5), (20, "loss", 0.125), (20, "loss", 0.25)]
    restarts = [e.step for e in events if e.HasField("session_log")]
    assert restarts == [11]


def _events(data):
    """Events of a file: records of length (8 bytes), its CRC (4), payload, its CRC (4)."""
    assert RecordWriter  # the format that this undoes
    while data:
        length = int.from_bytes(data[:8], "little")
        yield event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


@pytest.fixture(autouse=True)
def _distinct_event_files(monkeypatch):
    """Event files are named by the second; a test opens two within one."""
    clock = iter(range(1_000_000_000, 1_000_001_000))
    monkeypatch.setattr("tensorboardX.event_file_writer.time.time", lambda: next(clock))
