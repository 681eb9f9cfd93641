"""What a pass is given: the network, its quantizers, and what to look at it with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.progress import Progress
from torch import Tensor, nn

from edgeperc.errors import ModelError
from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.nets.taps import Attention, written_out

T = TypeVar("T")
Visit = Callable[[str, Tensor], None]


@dataclass(slots=True)
class Context:
    """samples: to calibrate with. held_out: to judge with, never to calibrate.

    keep_fp: globs of sites that no pass quantizes. progress: where passes show how far they are;
    None shows nothing. work: a folder where a long pass keeps how far it is, so that a run that was
    killed goes on from there; None keeps nothing. target: of [export] in the recipe.
    """

    subject: Subject
    sim: Simulated
    samples: list[Sample]
    held_out: list[Sample]
    seed: int = 0
    progress: Progress | None = None
    keep_fp: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    work: Path | None = None
    target: str = "onnxruntime"

    @property
    def net(self) -> nn.Module:
        """The network, quantized as far as it is."""
        return self.sim.net

    def track(self, things: Sequence[T], what: str) -> Iterator[T]:
        """The things, with a progress bar."""
        if self.progress is None:
            yield from things
            return
        task = self.progress.add_task(what, total=len(things), note="")
        for thing in things:
            yield thing
            self.progress.advance(task)
        self.progress.remove_task(task)

    @torch.no_grad()
    def stream(
        self,
        site_names: Iterable[str],
        visit: Visit,
        samples: Sequence[Sample] | None = None,
        *,
        inputs: bool = True,
        what: str = "looking",
    ) -> None:
        """Call visit(site, values) each time a site runs; nothing is kept.

        values: what a layer takes (its first input) or a tap is given, before the site's own
        quantizer; with inputs=False what leaves the site. The network runs as it is now; within
        `sim.off()` in full precision. Raises ModelError naming the first site, in the order they
        run, with values that are not finite.
        """
        names = list(site_names)
        samples = self.samples if samples is None else samples
        hooks = [self._look(name, visit, inputs) for name in names]
        with self._written_out(names):
            try:
                for sample in self.track(samples, what):
                    self.subject.run(self.net, sample)
            finally:
                for hook in hooks:
                    hook.remove()

    def capture(
        self,
        site_names: Iterable[str],
        samples: Sequence[Sample] | None = None,
        *,
        inputs: bool = True,
    ) -> dict[str, list[Tensor]]:
        """As `stream`, all of it kept: one tensor for each time a site ran, in order."""
        held: dict[str, list[Tensor]] = {name: [] for name in site_names}
        self.stream(
            held, lambda name, values: held[name].append(values.clone()), samples, inputs=inputs
        )
        return held

    @torch.no_grad()
    def outputs(self, samples: Sequence[Sample], *, exact: bool = False) -> list[dict[str, Tensor]]:
        """What the network answers, as quantized now, or exactly."""
        with self.sim.off() if exact else nullcontext():
            return [self.subject.run(self.net, sample) for sample in samples]

    def _look(self, name: str, visit: Visit, inputs: bool) -> Any:
        site = self.sim.sites.get(name)
        if site is None:
            raise ModelError(f"the network has no site '{name}'")

        def show(values: Tensor) -> None:
            if not bool(torch.isfinite(values).all()):
                raise ModelError(
                    f"{name}: what it {'takes' if inputs else 'gives'} is NaN or infinite",
                    hint="the network itself is broken, or the pass before it broke it",
                )
            visit(name, values.detach())

        if inputs:
            return site.module.register_forward_pre_hook(
                lambda module, args: show(args[0]), prepend=True
            )
        return site.module.register_forward_hook(lambda module, args, out: show(out))

    def _written_out(self, names: Sequence[str]) -> AbstractContextManager[None]:
        """Attention with a tap among the names as separate products, else the tap never runs."""
        sites = self.sim.sites
        parents = {
            name.rpartition(".")[0] for name in names if name in sites and sites[name].kind == "tap"
        }
        modules = [self.net.get_submodule(parent) for parent in parents]
        return written_out(module for module in modules if isinstance(module, Attention))
