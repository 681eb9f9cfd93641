"""A run that was killed and went on is the run that was not."""

import io

import pytest
import torch
from rich.console import Console
from torch import nn

from edgeperc.errors import ConfigError
from edgeperc.offline.training_run import Pace, TrainingRun, progress_bar, schedule

PACE = Pace(steps=40, rate=0.1, warm_up_steps=5, average=0.9, checkpoint_every=10)


def run_in(folder, identity=None, pace=PACE):
    torch.manual_seed(0)
    return TrainingRun(nn.Linear(3, 1), identity or {"seed": 0}, folder / "checkpoint.pt", pace)


class Killed(BaseException):
    """What nobody expects."""


def fit(run, stop_at=None, stop=Killed):
    def loss_of(step):
        if step == stop_at:
            raise stop
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return (run.net(x)[:, 0] - x.sum(1)).square().mean()

    with progress_bar(Console(file=io.StringIO())) as progress:
        run.fit(loss_of, progress)


def test_it_learns_and_averages(tmp_path):
    run = run_in(tmp_path)
    fit(run)
    assert run.step == 40
    assert (run.net.weight - 1).abs().max() < 0.3
    mean = run.averaged()["weight"]
    assert not torch.equal(mean, run.net.weight)
    assert (mean - run.net.weight).abs().max() < 0.3


@pytest.mark.parametrize(
    ("stop", "step"),
    [(Killed, 20), (KeyboardInterrupt, 25)],
    ids=["the last checkpoint before the kill", "Ctrl-C saves"],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_end(tmp_path, stop, step):
    whole = run_in(tmp_path)
    fit(whole)
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(stop):
        fit(run_in(tmp_path), stop_at=25, stop=stop)
    rest = run_in(tmp_path)
    rest.load()
    assert rest.step == step
    fit(rest)
    for name, value in whole.averaged().items():
        assert torch.equal(value, rest.averaged()[name])


def test_what_has_learned_already_learns_more_slowly_and_does_not_decay(tmp_path):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = [layer.weight.detach().clone() for layer in net]
    pace = Pace(steps=1, rate=0.1, decay=0.5, warm_up_steps=1)
    run = TrainingRun(net, {"seed": 0}, tmp_path / "c.pt", pace, slow={"1.": 0.1})
    with progress_bar(Console(file=io.StringIO())) as progress:
        run.fit(lambda _: sum(layer.weight.sum() for layer in net), progress)
    # AdamW's first step is the rate, whatever the gradient; decay takes 0.1 x 0.5 of a weight.
    torch.testing.assert_close(net[0].weight, 0.95 * before[0] - 0.1)
    torch.testing.assert_close(net[1].weight, before[1] - 0.01)


def test_another_runs_checkpoint_is_refused(tmp_path):
    run_in(tmp_path).save()
    with pytest.raises(ConfigError, match="another seed or other settings"):
        run_in(tmp_path, {"seed": 1}).load()


def test_a_checkpoint_without_what_a_run_keeps_now_is_refused(tmp_path):
    run_in(tmp_path).save()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["mean"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="another seed or other settings"):
        run_in(tmp_path).load()


def test_the_rate_rises_and_falls():
    rates = [schedule(step, PACE) for step in range(41)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0)
    assert rates[5:] == sorted(rates[5:], reverse=True)


@pytest.mark.parametrize("everything", [False, True])
def test_biases_decay_only_where_it_is_said(everything, tmp_path):
    pace = Pace(steps=1, rate=0.1, decay=0.5, decay_all=everything, warm_up_steps=1)
    run = run_in(tmp_path, pace=pace)
    before = {name: p.detach().clone() for name, p in run.net.named_parameters()}
    with progress_bar(Console(file=io.StringIO())) as progress:
        run.fit(lambda _: sum(0 * p.sum() for p in run.net.parameters()), progress)
    shrunk = {name for name, p in run.net.named_parameters() if (p / before[name] < 0.99).all()}
    assert shrunk == ({"weight", "bias"} if everything else {"weight"})
