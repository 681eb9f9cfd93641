"""What processes a plan needs, and what each is made of: one that is made of the same may go on."""

from __future__ import annotations

from typing import Any

from edgeperc.plan import Plan
from edgeperc.supervise.orders import SensorOrder


def pipelines_of(plan: Plan) -> list[str]:
    """The pipelines that get a process: all but the search's."""
    steered = plan.app.search.gaze if plan.app.search else None
    return [table.name for table in plan.app.pipelines if table.name != steered]


def sensors_of(plan: Plan) -> list[str]:
    """The sensors that those look at."""
    tables = [plan.pipeline(name)[0] for name in pipelines_of(plan)]
    return [
        name
        for name in plan.rig.sensors
        if any(name in (table.input, table.frames) for table in tables)
    ]


def inputs_of(plan: Plan, name: str) -> tuple[str, ...]:
    """The sensors that a pipeline looks at."""
    table, _ = plan.pipeline(name)
    return tuple(dict.fromkeys(filter(None, (table.input, table.frames))))


def sensor_order(plan: Plan, name: str) -> SensorOrder:
    """What the process of one of a rig's sensors has to know."""
    validate = plan.app.validate
    return SensorOrder(
        name=name,
        table=plan.rig.sensors[name],
        where=f"{plan.rig_path} [sensors.{name}]",
        folder=plan.rig_path.parent,
        policy=validate.policy,
        max_gap_us=validate.max_gap_us,
    )


def pipeline_key(plan: Plan, name: str) -> Any:
    """What a pipeline's process is made of; one with an equal key may go on."""
    table, _ = plan.pipeline(name)
    model = plan.model(name)
    sensors = [sensor_order(plan, each) for each in inputs_of(plan, name)]
    return table, model.card, model.folder.resolve(), sensors


def search_key(plan: Plan) -> Any:
    """What a search is made of."""
    search, rig = plan.app.search, plan.rig
    if search is None:
        return None
    table, _ = plan.pipeline(search.gaze)
    model = plan.model(search.gaze)
    own = table, model.card, model.folder.resolve(), rig.sensors[table.input]
    return own, search, rig.mirror, rig.field, rig.calibration, rig.sensors.get(rig.field.wide)
