"""`edgeperc models import` and `pull` of published weights, from a file or a server to masks."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeperc import cli, places
from edgeperc.config import ModelCard, load
from edgeperc.inference.session import Session
from edgeperc.offline.export_efficient import published_bypass
from edgeperc.offline.nets import sam, sam2
from edgeperc.offline.nets.efficient import Tail
from edgeperc.offline.nets.sam import Sam, SamConfig
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config
from edgeperc.offline.nets.sam_variants import architectures
from edgeperc.offline.nets.tinyvit import TinyVitConfig
from edgeperc.offline.nets.vit import VitConfig
from edgeperc.prompt import Efficient, ImageSession, Prompt, VideoSession

from .tiny_promptable import tiny_sam2

SIDE = 64
VIT = SamConfig(
    name="small-vit",
    encoder=VitConfig(
        embed=16, depth=2, heads=2, global_blocks=(1,), picture_px=SIDE, window=3, width=16
    ),
    decoder_heads=2,
    decoder_feed_forward=8,
)
MOBILE = SamConfig(
    name="small-mobile",
    encoder=TinyVitConfig(
        embeds=(8, 8, 12, 16), heads=(2, 2, 2), picture_px=SIDE, width=16, labels=2
    ),
    decoder_heads=2,
    decoder_feed_forward=8,
)
CARD = """name = "{name}"
task = "promptable"
summary = "small"
licence = "none"
source = "a test"
classes = []
[input]
kind = "frame"
represent = "longest"
width_px = 64
height_px = 64
mean = [120, 110, 100]
std = [60, 60, 60]
[prompt]
kind = "image"
picture_px = 64
points = 4
[checkpoint]
architecture = "{name}"
url = "{url}"
sha256 = "{sha256}"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; two small networks among the published ones."""
    monkeypatch.setenv("EDGEPERC_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for config in (VIT, MOBILE):
        monkeypatch.setitem(sam.VARIANTS, config.name, config)
    return tmp_path / "home"


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["edgeperc", "models", *args])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def put_card(name: str, *, url: str = "", sha256: str = "") -> None:
    """A card in the current directory, as the published ones come with the package."""
    folder = Path("models") / name
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(CARD.format(name=name, url=url, sha256=sha256))


def weights(config: SamConfig, path: Path, **more: Any) -> Sam:
    """Random weights in the layout of the published files. Returns their network."""
    torch.manual_seed(1)
    net = Sam(config).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    torch.save({**net.state_dict(), **more}, path)
    return net


def box(name: str) -> np.ndarray[Any, Any]:
    """Logits of the single mask of a box on a grey picture, by the imported files."""
    session = ImageSession(places.find_model(name))
    session.look(np.full((SIDE, SIDE, 3), 128, np.uint8))
    answer = session.ask(Prompt(box=np.array([9.5, 10.5, 40.5, 50.5], np.float32)))
    session.close()
    return answer.logits[0]


@torch.no_grad()
def expected(net: Sam) -> np.ndarray[Any, Any]:
    picture = (128 - torch.tensor([120.0, 110.0, 100.0])) / 60
    embedding = net.encode(picture.reshape(1, 3, 1, 1).expand(1, 3, SIDE, SIDE))
    corners = torch.tensor([[[9.0, 10.0], [40.0, 50.0]]])
    return net.decode(embedding, corners, torch.tensor([[2.0, 3.0]])).masks[0, 0].numpy()


@pytest.mark.parametrize("config", [VIT, MOBILE], ids=lambda config: config.name)
def test_published_weights_answer_as_their_network(
    config: SamConfig,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_card(config.name)
    net = weights(config, Path("weights.pth"))
    assert run(monkeypatch, "import", config.name, "--checkpoint", "weights.pth") == 0
    said = capsys.readouterr()
    for step in ("reading weights.pth", "encoder.onnx", "decoder.onnx", "golden prompts"):
        assert step in said.err
    assert f"written to {home / 'models' / config.name}" in said.out
    assert f"edgeperc segment IMAGE --model {config.name}" in said.out
    logits, wanted = box(config.name), expected(net)
    assert wanted.std() > 0.1
    assert np.abs(logits - wanted).max() < 1e-3


def test_other_weights_than_the_cards_come_in_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_card("small-vit", sha256="0" * 64)
    weights(VIT, Path("weights.pth"))
    assert run(monkeypatch, "import", "small-vit", "--checkpoint", "weights.pth") == 0
    assert "warning: weights.pth has sha256" in capsys.readouterr().out.replace("\n", " ")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves the folder `served`."""
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    serving = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()
    thread.join()


def test_pull_downloads_the_weights_and_converts_them(
    server: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "served" / "sam_small_123456.pth"
    net = weights(VIT, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    put_card("small-vit", url=f"{server}/{file.name}?download=true", sha256=digest)
    assert run(monkeypatch, "pull", "small-vit") == 0
    said = capsys.readouterr().out.splitlines()
    assert any(line.endswith(f"rm {home / 'checkpoints' / file.name}") for line in said)
    assert np.abs(box("small-vit") - expected(net)).max() < 1e-3


def test_pull_refuses_another_file(
    server: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights(VIT, tmp_path / "served" / "sam.pth")
    put_card("small-vit", url=f"{server}/sam.pth", sha256="0" * 64)
    assert run(monkeypatch, "pull", "small-vit") == 1
    assert "is not the file that is wanted" in capsys.readouterr().err.replace("\n", " ")
    assert not (home / "models" / "small-vit").exists()


def test_a_card_that_wants_weights_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_card("small-vit", url="http://127.0.0.1:1/sam.pth", sha256="0" * 64)
    with pytest.raises(places.ModelError) as caught:
        places.find_model("small-vit")
    assert caught.value.hint == "edgeperc models pull small-vit"


class Code:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("trouble", ["another size", "cut short", "code", "no file"])
def test_a_bad_checkpoint_is_one_sentence_and_writes_nothing(
    trouble: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_card("small-vit")
    path, trace = Path("weights.pth"), tmp_path / "it-ran"
    if trouble == "another size":
        weights(MOBILE, path)
    elif trouble == "code":
        weights(VIT, path, surprise=Code(trace))
    elif trouble == "cut short":
        weights(VIT, path)
        path.write_bytes(path.read_bytes()[:5000])
    assert run(monkeypatch, "import", "small-vit", "--checkpoint", str(path)) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    (error,) = lines
    reason = {
        "another size": "the checkpoint is of small-mobile, the card is 'small-vit'",
        "cut short": "damaged or cut short",
        "code": "refused, because it asks for posix.mkdir",
        "no file": "No such file",
    }[trouble]
    assert reason in error
    assert not trace.exists()
    assert not (home / "models" / "small-vit").exists()


def small_hiera(monkeypatch: pytest.MonkeyPatch) -> Sam2:
    """A small network among the published ones that follow objects; its card and weights here."""
    net = tiny_sam2(
        name="small-hiera",
        picture_px=128,
        stages=(1, 1, 5, 1),
        global_blocks=(4, 6),
        windows=(8, 4, 6, 2),
    )
    monkeypatch.setitem(sam2.VARIANTS, "small-hiera", net.config)
    put_card("small-hiera")
    card = Path("models/small-hiera/model.toml")
    text = card.read_text().replace("longest", "stretch").replace("points = 4", "points = 16")
    card.write_text(text.replace('kind = "image"', 'kind = "video"').replace("= 64", "= 128"))
    torch.save({"model": net.state_dict()}, "small.pt")
    return net


def adapter_file(channels: int) -> str:
    """Random values in the layout of the two published adapters."""
    layout = {
        "down_project.weight": (channels // 2, channels),
        "down_project.bias": (channels // 2,),
        "up_project.weight": (channels, channels // 2),
        "up_project.bias": (channels,),
        "norm.weight": (channels,),
        "norm.bias": (channels,),
    }
    torch.manual_seed(5)
    torch.save({name: torch.randn(shape) for name, shape in layout.items()}, "bypass.pth")
    return "bypass.pth"


def test_a_published_adapter_comes_with_the_weights(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = small_hiera(monkeypatch)
    adapter = adapter_file(4 * net.config.embed)
    args = ("import", "small-hiera", "--checkpoint", "small.pt", "--bypass", adapter)
    assert run(monkeypatch, *args) == 0
    assert "--window-routing" in capsys.readouterr().out
    model = places.find_model("small-hiera")
    assert model.folder == home / "models" / "small-hiera"
    assert model.card.prompt is not None
    assert not model.card.prompt.window_routing  # a pipeline switches it on
    tokens = np.random.default_rng(0).random((1, 8, 8, 32), np.float32)
    chosen = np.zeros((1, 8, 8, 1), np.float32)
    tail = model.file("encoder_tail")
    assert tail is not None
    found = Session(tail).run(tokens, chosen)[0]
    bypass = published_bypass(net, Path(adapter))
    with torch.no_grad():
        expected = Tail(net, bypass)(torch.from_numpy(tokens), torch.from_numpy(chosen))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)
    routed = VideoSession(model, threads=1, efficient=Efficient(window_routing=True))
    assert "routed_frames" in routed.counters


@pytest.mark.parametrize(
    "trouble", ["another size", "no file", "a network of pictures", "no weights"]
)
def test_an_adapter_that_does_not_fit_leaves_nothing(
    trouble: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = small_hiera(monkeypatch)
    adapter = adapter_file(448 if trouble == "another size" else 4 * net.config.embed)
    args = ["import", "small-hiera", "--checkpoint", "small.pt", "--bypass", adapter]
    if trouble == "no file":
        args[-1] = "gone.pth"
    elif trouble == "a network of pictures":
        put_card("small-vit")
        weights(VIT, Path("vit.pth"))
        args[1:4] = ["small-vit", "--checkpoint", "vit.pth"]
    elif trouble == "no weights":
        args[2:4] = ["--file", "small.pt"]
    assert run(monkeypatch, *args) == (2 if trouble == "no weights" else 1)
    assert {
        "another size": "no adapter of 'small-hiera'",
        "no file": "gone.pth: No such file",
        "a network of pictures": "model 'small-vit' does not follow objects",
        "no weights": "--bypass goes with --checkpoint",
    }[trouble] in capsys.readouterr().err
    assert not (home / "models").exists()


CARDS = Path(__file__).parents[1] / "models"


@pytest.mark.parametrize("name", [name for name in architectures() if not name.startswith("small")])
def test_the_cards_are_those_of_the_networks(name: str) -> None:
    card, config = load(CARDS / name / "model.toml", ModelCard), architectures()[name]
    assert card.checkpoint is not None
    assert card.prompt is not None
    assert card.checkpoint.architecture == card.name == name
    assert len(card.checkpoint.sha256) == 64
    assert card.checkpoint.url.startswith("https://")
    assert card.prompt.picture_px == config.picture_px == card.input.width_px
    followed = isinstance(config, Sam2Config)
    assert card.prompt.kind == ("video" if followed else "image")
    assert card.input.represent == ("stretch" if followed else "longest")
    assert (name in sam2.VARIANTS) == followed
