import re
from pathlib import Path

import pytest

from edgeperc.changes import changed
from edgeperc.plugin import parameters

yaml = pytest.importorskip("yaml")
kubernetes_validate = pytest.importorskip("kubernetes_validate")
FILE = Path(__file__).parents[1] / "apps/fleet/k3s.yaml"


def documents():
    return list(yaml.safe_load_all(FILE.read_text()))


@pytest.mark.parametrize("number", range(5))
def test_every_document_keeps_the_schema_of_kubernetes(number):
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(documents()[number], version, strict=True)


def test_there_is_no_document_that_is_not_checked():
    assert len(documents()) == 5


def test_the_sink_that_is_asked_for_is_there():
    (daemons,) = (each for each in documents() if each["kind"] == "DaemonSet")
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    (sink,) = changed({}, [container["args"][1]])["sinks"]
    assert set(sink) - {"kind"} <= parameters(sink, kind="sink", folder=FILE.parent)
    (service,) = (each for each in documents() if each["kind"] == "Service")
    port = service["spec"]["ports"][0]["port"]
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert sink["router"] == f"tcp/{name}:{port}"
    assert re.fullmatch(r"\$\((\w+)\)", sink["device"])[1] == container["env"][0]["name"]
