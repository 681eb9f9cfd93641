"""Prompts about a picture of the client's own: Segment of a promptable model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc import masks, places
from edgeperc.client import Client, connect
from edgeperc.errors import ConfigError
from edgeperc.prompt import ImageSession, Prompt
from edgeperc.proto.codec import mask_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.result import Instances, ModelRef
from edgeperc.sink import Inventory
from edgeperc.sinks import perception, prompts
from edgeperc.sinks.grpc import Grpc
from edgeperc.sinks.pictures import MOST_PIXELS
from edgeperc.sinks.prompts import MOST_PROMPTS

from .test_client_orders import example
from .test_grpc import eventually

NAME = "promptable"
SIZE = (120, 160)
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    image = np.full((*SIZE, 3), 60, np.uint8)
    cv2.rectangle(image, (30, 30), (70, 80), (220, 90, 40), -1)
    cv2.circle(image, (120, 60), 22, (40, 200, 230), -1)
    return image


@pytest.fixture(scope="module")
def sink() -> Iterator[Grpc]:
    models = (ModelRef(name=NAME), ModelRef(name="regions-twin"))
    sink = Grpc(listen="127.0.0.1:0", inventory=Inventory(models=models))
    yield sink
    sink.close()


@pytest.fixture
def client(sink: Grpc) -> Iterator[Client]:
    with connect(sink.address) as client:
        yield client


@pytest.fixture
def stub(sink: Grpc) -> Iterator[Any]:
    with grpc.insecure_channel(sink.address) as channel:
        yield pb_grpc.PerceptionServiceStub(channel)


def raw(picture: NDArray[np.uint8]) -> pb.RawImage:
    height, width = picture.shape[:2]
    return pb.RawImage(width=width, height=height, channels=3, data=picture.tobytes())


def code(stub: Any, **request: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Segment(pb.SegmentRequest(**{"model": NAME, **request}), timeout=60)
    found: grpc.StatusCode = caught.value.code()
    return found


def test_each_prompt_is_answered_as_the_model_does(
    client: Client, picture: NDArray[np.uint8]
) -> None:
    half = np.zeros(SIZE, np.bool_)
    half[40:70, 35:60] = True
    asked = [
        Prompt(box=(28, 28, 72, 82)),
        Prompt(points=[(120, 60), (10, 10)], labels=[1, 0]),
        Prompt(mask=half),
        Prompt(box=(95, 35, 145, 85), points=[(120, 60)]),
    ]
    found = client.segment(picture, NAME, prompts=asked)
    assert isinstance(found, Instances)
    assert found.ids.tolist() == [1, 2, 3, 4]
    assert found.picture_px == (160, 120)
    assert found.model.sha256

    alone = ImageSession(places.find_model(NAME), threads=1)
    alone.look(picture)
    for index, prompt in enumerate(asked):
        answer = alone.ask(prompt)
        np.testing.assert_array_equal(masks.decode(found.masks[index]), answer.masks[0])
        assert found.scores[index] == pytest.approx(answer.scores[0], abs=1e-5)
        np.testing.assert_array_equal(found.boxes[index], masks.box(found.masks[index]))
    alone.close()


def test_a_file_is_as_good_as_pixels(client: Client, picture: NDArray[np.uint8]) -> None:
    prompt = [Prompt(box=(28, 28, 72, 82))]
    _, png = cv2.imencode(".png", picture[..., ::-1])
    of_file = client.segment(png.tobytes(), NAME, prompts=prompt)
    of_pixels = client.segment(picture, NAME, prompts=prompt)
    assert isinstance(of_file, Instances)
    assert isinstance(of_pixels, Instances)
    assert of_file.masks == of_pixels.masks


def test_a_picture_that_comes_again_is_not_encoded_again(
    sink: Grpc, client: Client, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = ImageSession.look
    monkeypatch.setattr(
        ImageSession, "look", lambda self, image: (looks.append(1), look(self, image))[1]
    )
    prompt = [Prompt(points=[(50, 50)])]
    other = picture[:, ::-1].copy()
    for image in (other, other, picture, picture, other):
        client.segment(image, NAME, prompts=prompt)
    assert len(looks) == 3


@pytest.mark.parametrize(
    ("prompts", "wanted", "words"),
    [
        ([], CODE.INVALID_ARGUMENT, "nothing is asked"),
        ([pb.ObjectPrompt()], CODE.INVALID_ARGUMENT, "object 1: a prompt asks for nothing"),
        (
            [{"points": [{"x": 50, "y": 50}]}, {"points": [{"x": 161, "y": 3}]}],
            CODE.INVALID_ARGUMENT,
            r"object 2: point \(161, 3\) of a prompt is outside",
        ),
        ([{"points": [{"x": float("nan")}]}], CODE.INVALID_ARGUMENT, "object 1: "),
        (
            [{"box": {"x_min": 9, "x_max": 3, "y_max": 9}}],
            CODE.INVALID_ARGUMENT,
            "object 1: the box",
        ),
        (
            [{"mask": {"width": 1 << 14, "height": 1 << 14, "counts": b"0"}}],
            CODE.INVALID_ARGUMENT,
            "a mask of 16384 × 16384 px in pictures of 160 × 120 px",
        ),
        (
            [{"mask": {"width": 160, "height": 120, "counts": b"~"}}],
            CODE.INVALID_ARGUMENT,
            "object 1: ",
        ),
        (
            [{"points": [{"x": 50, "y": 50}]}] * (MOST_PROMPTS + 1),
            CODE.RESOURCE_EXHAUSTED,
            "65 prompts; at most 64",
        ),
        (
            [{"points": [{"x": 50, "y": 50}] * 100}],
            CODE.RESOURCE_EXHAUSTED,
            "a prompt of 100 points; at most",
        ),
    ],
)
def test_prompts_that_make_no_sense_are_refused_with_words(
    stub: Any, picture: NDArray[np.uint8], prompts: list[Any], wanted: Any, words: str
) -> None:
    with pytest.raises(grpc.RpcError, match=words) as caught:
        stub.Segment(pb.SegmentRequest(model=NAME, raw=raw(picture), prompts=prompts), timeout=60)
    assert caught.value.code() == wanted


def test_a_model_that_takes_no_prompts_says_so(client: Client, picture: NDArray[np.uint8]) -> None:
    with pytest.raises(ConfigError, match="'regions-twin' takes no prompts"):
        client.segment(picture, "regions-twin", prompts=[Prompt(points=[(5, 5)])])


def test_sizes_are_bounded_before_anything_of_them_is_made(
    stub: Any, picture: NDArray[np.uint8]
) -> None:
    point = [{"points": [{"x": 1, "y": 1}]}]
    huge = pb.RawImage(width=1 << 13, height=(MOST_PIXELS >> 13) + 1, channels=1)
    assert code(stub, raw=huge, prompts=point) == CODE.RESOURCE_EXHAUSTED
    lying = pb.RawImage(width=100, height=100, channels=3, data=b"0")
    assert code(stub, raw=lying, prompts=point) == CODE.INVALID_ARGUMENT


def test_masks_are_unpacked_one_at_a_time(
    stub: Any, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 64 masks no more than a few are there at once, as sixty bytes may hold 33 megapixels."""
    alive, most = [0], [0]

    class Counted(Prompt):
        def __post_init__(self) -> None:
            Prompt.__post_init__(self)
            alive[0] += 1
            most[0] = max(most[0], alive[0])

        def __del__(self) -> None:
            alive[0] -= 1

    monkeypatch.setattr(prompts, "Prompt", Counted)
    on = np.zeros(SIZE, np.bool_)
    on[10:60, 10:60] = True
    prompt = pb.ObjectPrompt(mask=mask_message(masks.encode(on)))
    request = pb.SegmentRequest(model=NAME, raw=raw(picture), prompts=[prompt] * 8)
    assert len(stub.Segment(request, timeout=120).result.instances.instances) == 8
    assert 0 < most[0] < 8


def test_a_call_that_nobody_waits_for_is_computed_no_further(
    sink: Grpc, stub: Any, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller goes while the first of twenty prompts is answered."""
    asked, contexts = [], []
    ask, its_turn = ImageSession.ask, perception.its_turn

    def watched(lock: Any, context: Any) -> Any:
        contexts.append(context)
        return its_turn(lock, context)

    def slowly(session: ImageSession, prompt: Prompt) -> Any:
        asked.append(prompt)
        call.cancel()
        assert eventually(lambda: not contexts[0].is_active())
        return ask(session, prompt)

    monkeypatch.setattr(perception, "its_turn", watched)
    monkeypatch.setattr(ImageSession, "ask", slowly)
    request = pb.SegmentRequest(
        model=NAME, raw=raw(picture), prompts=[{"points": [{"x": 5, "y": 5}]}] * 20
    )
    call = stub.Segment.future(request, timeout=600)
    assert eventually(lambda: bool(asked))
    with sink._models.get(NAME).lock:  # the call is over
        assert len(asked) == 1


def test_the_docs_example_runs(
    sink: Grpc,
    picture: NDArray[np.uint8],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("street.png", picture)
    exec(example("prompts=asked", sink.address), {})
    assert capsys.readouterr().out.startswith("[1 2] [")
