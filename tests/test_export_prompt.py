from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.offline import export_prompt, onnx_part, trainers
from edgeperc.offline.export_prompt import PromptReport, export_network, import_checkpoint
from edgeperc.offline.nets import sam2 as sam2_nets
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.onnx_part import write_part
from edgeperc.offline.onnx_tidy import tidy, unfit
from edgeperc.offline.prompt_parts import parts
from edgeperc.places import ModelFolder, find_model
from edgeperc.prompting.golden import agreement

from .tiny_promptable import TINY, card_of, exported, tiny_sam, tiny_sam2

VIDEO = ("encoder", "decoder", "memory_encoder", "memory_attention")


@pytest.fixture(scope="module")
def net() -> Sam2:
    return tiny_sam2(1)


@pytest.fixture(scope="module")
def full(net: Sam2, tmp_path_factory: pytest.TempPathFactory) -> tuple[PromptReport, ModelFolder]:
    """A network in full precision."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    report = export_network(card_of(net), net, folder)
    return report, find_model(str(folder))


@pytest.fixture(scope="module")
def folder(full: tuple[PromptReport, ModelFolder]) -> ModelFolder:
    return full[1]


@pytest.fixture(scope="module")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return exported(tiny_sam(), tmp_path_factory.mktemp("models") / "sam")


def graphs(model: ModelFolder) -> dict[str, onnx.ModelProto]:
    paths = {entry.role: model.folder / entry.path for entry in model.card.files}
    return {role: onnx.load(str(path)) for role, path in paths.items() if path.suffix == ".onnx"}


# --- what the files hold -------------------------------------------------------------------------


def test_the_files_are_those_of_the_card_with_their_sha256(
    folder: ModelFolder, sam_folder: ModelFolder
) -> None:
    assert tuple(entry.role for entry in folder.card.files) == (*VIDEO, "constants", "golden")
    assert tuple(entry.role for entry in sam_folder.card.files) == ("encoder", "decoder", "golden")
    for model in (folder, sam_folder):
        for entry in model.card.files:
            path = model.file(entry.role)  # holds it to the sha256
            assert path is not None
            assert len(entry.sha256) == 64
            assert path.stat().st_size == entry.bytes
        assert sorted(path.name for path in model.folder.iterdir()) == sorted(
            ["model.toml", *(entry.path for entry in model.card.files)]
        )


def test_the_graphs_have_nothing_that_engine_builders_stumble_over(
    folder: ModelFolder, sam_folder: ModelFolder
) -> None:
    for model in (folder, sam_folder):
        for role, graph in graphs(model).items():
            assert unfit(graph) == [], role
            operators = Counter(node.op_type for node in graph.graph.node)
            assert not operators.keys() & {"OneHot", "If", "Loop", "NonZero", "Tile", "Shape"}
            assert not operators.keys() & {"Constant", "Identity", "Sequence", "Einsum"}
            assert [each.version for each in graph.opset_import] == [17]
            computed = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph.value_info
            types = {value.type.tensor_type.elem_type for value in computed}
            assert types <= {TensorProto.FLOAT, TensorProto.BOOL}
            for value in (*graph.graph.input, *graph.graph.output, *computed):
                shape = value.type.tensor_type.shape
                assert all(each.dim_value > 0 for each in shape.dim), value.name


def test_constants_are_kept_once(folder: ModelFolder) -> None:
    for role, graph in graphs(folder).items():
        held = [numpy_helper.to_array(each) for each in graph.graph.initializer]
        keys = [(each.shape, each.dtype.str, each.tobytes()) for each in held]
        assert len(set(keys)) == len(keys), role


def test_a_memory_of_more_frames_needs_no_larger_file(net: Sam2, tmp_path: Path) -> None:
    sizes = []
    for prompt_frames in (1, 9):
        prompt = card_of(net, prompt_frames=prompt_frames).prompt
        assert prompt is not None
        with torch.no_grad():
            part = next(part for part in parts(net, prompt) if part.role == "memory_attention")
            entry, _ = write_part(part, tmp_path)
        tokens = (prompt_frames + 6) * 16 + (prompt_frames + 15) * 2
        assert Session(tmp_path / entry.path).input_shapes["memory"] == (1, tokens, 64)
        sizes.append(entry.bytes)
    assert abs(sizes[0] - sizes[1]) < 200


def test_an_open_memory_takes_any_number_of_frames(net: Sam2, tmp_path: Path) -> None:
    prompt = card_of(net).prompt
    assert prompt is not None
    with torch.no_grad():
        part = list(parts(net, prompt, open_memory=True))[-1]
        write_part(part, tmp_path)
        session = Session(tmp_path / "memory_attention.onnx", threads=1)
        for frames in (1, 3):
            count = frames * 16 + 17 * 2
            given = [torch.randn(1, count, 64), torch.randn(1, count, 64), torch.zeros(1, count)]
            embedding = part.inputs["embedding"]
            wanted = net.attend_memory(embedding, given[0], given[1], 34, given[2])
            found = session.run(*(each.numpy() for each in (embedding, *given)))[0]
            np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_absent_points_and_frames_change_nothing(net: Sam2, folder: ModelFolder) -> None:
    session = Session(folder.folder / "decoder.onnx", threads=1)
    rng = np.random.default_rng(0)
    shapes = list(session.input_shapes.values())
    given = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    given[4][:] = -2
    given[4][0, :2] = 1, -1
    before = session.run(*given)
    given[3][0, 2:] = 1e3
    for one, other in zip(before, session.run(*given), strict=True):
        np.testing.assert_array_equal(one, other)
    with torch.no_grad():
        high = (torch.from_numpy(given[1]), torch.from_numpy(given[2]))
        points, labels = torch.from_numpy(given[3][:, :2]), torch.from_numpy(given[4][:, :2])
        mask, embedding = torch.from_numpy(given[5]), torch.from_numpy(given[0])
        wanted = net.decode(
            embedding, high, points, labels, mask, has_mask=torch.from_numpy(given[6])
        )
    np.testing.assert_allclose(before[0], wanted.masks.numpy(), atol=1e-3)


def test_half_precision_halves_the_files_and_keeps_the_answers(
    net: Sam2, full: tuple[PromptReport, ModelFolder], tmp_path: Path
) -> None:
    report = export_network(card_of(net), net, tmp_path / "half", storage="half")
    exact = full[0]
    for one, other in zip(report.files[:4], exact.files[:4], strict=True):
        assert one.bytes < 0.75 * other.bytes  # names and shapes of so small a network weigh much
        assert exact.differences[one.role] < 1e-4 < report.differences[one.role] < 2e-2
    assert "golden masks" in exact.summary()
    assert f"{exact.parameters:,} parameters" in exact.summary()


def test_golden_masks_are_answered_by_their_folder_alone(
    folder: ModelFolder, sam_folder: ModelFolder, tmp_path: Path
) -> None:
    assert [round(share, 2) for share in agreement(folder)] == [1.0, 1.0]
    assert [round(share, 2) for share in agreement(sam_folder)] == [1.0]
    shutil.copytree(folder.folder, tmp_path / "m")
    held = dict(np.load(tmp_path / "m" / "golden.npz"))
    held["masks"] = ~held["masks"]
    np.savez(tmp_path / "m" / "golden.npz", **held)
    files = tuple(msgspec.structs.replace(entry, sha256="") for entry in folder.card.files)
    card = msgspec.structs.replace(folder.card, files=files)
    assert max(agreement(ModelFolder(card, tmp_path / "m"))) < 0.01


# --- what is not written -------------------------------------------------------------------------


def test_a_file_that_answers_otherwise_is_not_written(
    net: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(model: onnx.ModelProto) -> onnx.ModelProto:
        for tensor in tidy(model).graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.size > 1000:
                tensor.CopyFrom(numpy_helper.from_array(values * 1.01, tensor.name))
        return model

    monkeypatch.setattr(onnx_part, "tidy", spoilt)
    with pytest.raises(ModelError, match="the file of the encoder answers otherwise"):
        export_network(card_of(net), net, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_engine_builders_stumble_over_is_not_written(
    net: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_part, "unfit", lambda *_, **__: ["OneHot 'a'"])
    with pytest.raises(ModelError, match="the encoder cannot be written: it has OneHot 'a'"):
        export_network(card_of(net), net, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_files_that_together_answer_otherwise_are_not_written(
    net: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_prompt, "agreement", lambda model: [1.0, 0.9])
    with pytest.raises(ModelError, match=r"10.0% of the pixels of a golden mask differ"):
        export_network(card_of(net), net, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("picture_px", 128, r"\[prompt\] picture_px is 128, the network 'tiny' has 64"),
        ("memory_frames", 5, r"\[prompt\] memory_frames is 5"),
        ("max_pointers", 4, r"\[prompt\] max_pointers is 4"),
        ("represent", "fit", r"\[input\] represent is fit, the network 'tiny' has stretch"),
        ("width_px", 65, r"\[input\] width_px is 65"),
        ("prompt", None, r"has no \[prompt\]"),
    ],
)
def test_a_card_of_another_network_is_refused(
    net: Sam2, tmp_path: Path, key: str, value: Any, why: str
) -> None:
    card = card_of(net)
    assert card.prompt is not None
    if key == "prompt":
        card = msgspec.structs.replace(card, prompt=None)
    elif hasattr(card.prompt, key):
        table = msgspec.structs.replace(card.prompt, **{key: value})
        card = msgspec.structs.replace(card, prompt=table)
    else:
        table = msgspec.structs.replace(card.input, **{key: value})
        card = msgspec.structs.replace(card, input=table)
    with pytest.raises(ModelError, match=why):
        export_network(card, net, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_sam_has_no_memory_for_video(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="SAM has no memory"):
        exported(tiny_sam(), tmp_path / "m", "video")


# --- from weights --------------------------------------------------------------------------------


def test_what_training_wrote_becomes_a_folder(net: Sam2, tmp_path: Path) -> None:
    torch.save({"config": asdict(TINY), "net": net.state_dict()}, tmp_path / "weights.pt")
    report = trainers.export_trained(card_of(net), tmp_path / "weights.pt", tmp_path / "m")
    assert "encoder.onnx" in report.summary()
    assert min(agreement(find_model(str(tmp_path / "m")))) > 0.9


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (None, "no-such|No such file"),
        (b"nonsense", "not what `edgeperc train` writes"),
        ({"net": {}}, "not what `edgeperc train` writes"),
        ({"config": asdict(TINY), "net": {}}, "do not fit its sizes"),
        ({"config": {"name": "x"}, "net": {}}, "do not fit its sizes"),
        ({"config": {**asdict(TINY), "width": 100}, "net": {}}, "do not fit its sizes"),
    ],
)
def test_other_weights_are_refused(net: Sam2, tmp_path: Path, held: Any, why: str) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(held, bytes):
        path.write_bytes(held)
    elif held is not None:
        torch.save(held, path)
    with pytest.raises(ModelError, match=why) as caught:
        trainers.export_trained(card_of(net), path, tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_published_weights_become_a_folder_with_a_warning_if_they_are_others(
    net: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sam2_nets.VARIANTS, "tiny", TINY)
    torch.save({"model": net.state_dict()}, tmp_path / "tiny.pt")
    card = msgspec.convert(
        {**msgspec.to_builtins(card_of(net)), "checkpoint": {"architecture": "tiny"}},
        type(card_of(net)),
    )
    written = import_checkpoint(card, tmp_path / "tiny.pt", tmp_path / "m")
    assert written.notes == ()
    assert min(agreement(find_model(str(tmp_path / "m")))) > 0.99
    monkeypatch.setattr(export_prompt, "export_network", lambda *_, **__: written)
    wanted = msgspec.structs.replace(card.checkpoint, sha256="0" * 64)
    other = msgspec.structs.replace(card, checkpoint=wanted)
    report = import_checkpoint(other, tmp_path / "tiny.pt", tmp_path / "other")
    assert "tiny.pt has sha256" in report.summary()


# --- the walker ----------------------------------------------------------------------------------


def walked(*nodes: onnx.NodeProto, kind: int = TensorProto.FLOAT) -> list[str]:
    graph = helper.make_graph(
        list(nodes),
        "walked",
        [
            helper.make_tensor_value_info("x", kind, [2, 3]),
            helper.make_tensor_value_info("s", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([3, 2]), "shape")],
    )
    return unfit(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def test_the_walker_finds_what_it_looks_for() -> None:
    assert walked(helper.make_node("Reshape", ["x", "shape"], ["y"])) == []
    assert "OneHot" in walked(helper.make_node("OneHot", ["x", "shape", "s"], ["y"]))[0]
    assert "NonZero" in walked(helper.make_node("NonZero", ["x"], ["y"]))[0]
    cast = helper.make_node("Cast", ["s"], ["ints"], to=TensorProto.INT64)
    assert walked(cast, helper.make_node("Tile", ["x", "ints"], ["y"])) == [
        "Tile '' of a shape that depends on the data"
    ]
    assert walked(cast, helper.make_node("Add", ["ints", "shape"], ["y"]))[0] == (
        "Add '' computes with the integers 'ints'"
    )
    of_integers = walked(helper.make_node("Cast", ["x"], ["y"], to=1), kind=TensorProto.INT64)
    assert "'x' is of integers" in of_integers
