from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from airflow_provider_lakebase.emulator.model.errors import ApiError
from airflow_provider_lakebase.emulator.model.pipelines import Pipeline, Pipelines, SyncError
from airflow_provider_lakebase.emulator.model.workspace import Behaviour


class Recorder:
    """A flow that records what its pipeline does."""

    def __init__(self, error: Exception | None = None, on_load: Callable[[], None] = lambda: None) -> None:
        self.calls: list[str] = []
        self.error = error
        self.on_load = on_load
        self.followed = threading.Event()

    def prepare(self) -> None:
        self.calls.append("prepare")

    def load(self, *, full_refresh: bool) -> None:
        self.calls.append("load all" if full_refresh else "load")
        self.on_load()
        if self.error:
            raise self.error

    def finish(self) -> None:
        self.calls.append("finish")

    def follow(self) -> None:
        self.calls.append("follow")
        self.followed.set()

    def fail(self, message: str) -> None:
        self.calls.append(f"fail: {message}")

    def cancel(self) -> None:
        self.calls.append("cancel")


@pytest.fixture
def behaviour() -> Behaviour:
    behaviour = Behaviour()
    behaviour.pipeline_seconds = 0.0
    return behaviour


@pytest.fixture
def pipelines(behaviour: Behaviour) -> Pipelines:
    """Return pipelines whose updates have ended when they have started."""
    return Pipelines(lambda: 1_000.0, behaviour, lambda run: run())


def attach(pipelines: Pipelines, *flows: Recorder, policy: str = "TRIGGERED") -> Pipeline:
    pipeline = pipelines.create("Synced table: main.gold.customers", policy, "me")
    for number, flow in enumerate(flows):
        pipelines.attach(pipeline, f"table {number}", flow)
    return pipeline


def test_an_update_prepares_loads_and_finishes_every_table(pipelines: Pipelines) -> None:
    one, other = Recorder(), Recorder()
    pipeline = attach(pipelines, one, other)
    one.calls.clear()
    other.calls.clear()
    update = pipelines.start(pipeline, full_refresh=False)
    assert one.calls == other.calls == ["prepare", "load", "finish"]
    assert (update.state, pipeline.state) == ("COMPLETED", "IDLE")


def test_a_full_refresh_reaches_the_tables(pipelines: Pipelines) -> None:
    flow = Recorder()
    pipeline = attach(pipelines, flow)
    pipelines.start(pipeline, full_refresh=True)
    assert flow.calls[-2:] == ["load all", "finish"]


def test_one_table_that_fails_fails_all_of_the_pipeline(pipelines: Pipelines) -> None:
    good, bad = Recorder(), Recorder(SyncError("no"))
    pipeline = attach(pipelines, good, bad)
    assert good.calls[-1] == bad.calls[-1] == "fail: no"
    assert (pipeline.updates[0].state, pipeline.state) == ("FAILED", "FAILED")


def test_an_error_that_nobody_foresaw_fails_the_update_and_is_told(pipelines: Pipelines) -> None:
    flow = Recorder(RuntimeError("broken"))
    pipeline = attach(pipelines, flow)
    assert flow.calls[-1] == "fail: [INTERNAL_ERROR] RuntimeError('broken')"
    assert pipeline.updates[0].state == "FAILED"


def test_an_update_fails_on_request_before_it_loads(pipelines: Pipelines, behaviour: Behaviour) -> None:
    behaviour.faults.fail_pipelines("[OUT_OF_SPACE] no space")
    flow = Recorder()
    pipeline = attach(pipelines, flow)
    assert flow.calls == ["prepare", "fail: [OUT_OF_SPACE] no space"]
    assert pipelines.start(pipeline, full_refresh=False).state == "COMPLETED"


def test_a_second_update_is_refused_while_one_runs(pipelines: Pipelines) -> None:
    errors: list[ApiError] = []

    def start_again() -> None:
        with pytest.raises(ApiError) as caught:
            pipelines.start(pipelines.all()[0], full_refresh=False)
        errors.append(caught.value)

    pipeline = attach(pipelines, Recorder(on_load=start_again))
    assert errors[0].status == 409
    assert "An active update already exists" in str(errors[0])
    assert len(pipeline.updates) == 1


def test_updates_are_listed_newest_first(pipelines: Pipelines) -> None:
    pipeline = attach(pipelines, Recorder())
    update = pipelines.start(pipeline, full_refresh=True)
    assert [each["update_id"] for each in pipeline.json()["latest_updates"]][0] == update.update_id
    assert pipelines.update(pipeline.pipeline_id, update.update_id).json()["full_refresh"] is True


def test_an_unknown_pipeline_or_update_is_not_found(pipelines: Pipelines) -> None:
    pipeline = attach(pipelines, Recorder())
    for find in (lambda: pipelines.require("x"), lambda: pipelines.update(pipeline.pipeline_id, "x")):
        with pytest.raises(ApiError) as caught:
            find()
        assert caught.value.status == 404


def test_the_last_table_takes_its_pipeline_with_it(pipelines: Pipelines) -> None:
    pipeline = attach(pipelines, Recorder(), Recorder())
    pipelines.detach(pipeline.pipeline_id, "table 0")
    assert pipelines.all() == [pipeline]
    pipelines.detach(pipeline.pipeline_id, "table 1")
    assert pipelines.all() == []


def test_a_stop_cancels_the_update(behaviour: Behaviour) -> None:
    behaviour.pipeline_seconds = 600.0
    pipelines = Pipelines(lambda: 1_000.0, behaviour)
    flow = Recorder()
    pipeline = attach(pipelines, flow)
    assert pipeline.updates[0].active
    pipelines.stop(pipeline)
    assert pipeline.updates[0].ended.wait(60)
    assert (pipeline.updates[0].state, flow.calls[-1]) == ("CANCELED", "cancel")
    pipelines.stop(pipeline)


def test_a_continuous_update_follows_its_sources_until_it_is_stopped(behaviour: Behaviour) -> None:
    pipelines = Pipelines(lambda: 1_000.0, behaviour)
    flow = Recorder()
    pipeline = attach(pipelines, flow, policy="CONTINUOUS")
    for _ in range(2):
        assert flow.followed.wait(60)
        flow.followed.clear()
        pipelines.notify()
    assert pipeline.state == "RUNNING"
    pipelines.stop_all()
    pipelines.join()
    assert flow.calls[:4] == ["prepare", "load", "finish", "follow"]
    assert flow.calls[-1] == "cancel"
