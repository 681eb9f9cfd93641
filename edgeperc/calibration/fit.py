"""Robust fits of the models to correspondences, judged on points they have not seen.

Errors are angles of gaze times the search camera's pixels per radian: how far from the middle of
the search picture a target would lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeperc.calibration.models import (
    PARAMETERS,
    Array,
    IdealLens,
    Model,
    Physical,
    Polynomial,
    start_of,
)
from edgeperc.calibration.points import FEWEST, Points
from edgeperc.errors import DataError

Mask: TypeAlias = NDArray[np.bool_]
_HUBER = 1.345
_OUTLIER_SIGMA = 6.0
_LEAST_OUTLIER = 1 / 32
_LEAST_SIGMA_PX = 0.3
_MOST_OUTLIERS = 0.3
_DRAWS = 300
_PARALLAX_SD = 0.3
_CLEARLY = 0.85

PRIOR_SD = {
    "k1": 0.5,
    "k2": 0.5,
    "gain_pan": 0.1,
    "gain_tilt": 0.1,
    "cubic_pan": 0.5,
    "cubic_tilt": 0.5,
    "offset_pan_rad": 0.02,
    "offset_tilt_rad": 0.02,
    "skew": 0.05,
    "gap_m": 0.03,
    "rotation_x_rad": 0.1,
    "rotation_y_rad": 0.1,
    "rotation_z_rad": 0.1,
    "translation_x_m": 0.3,
    "translation_y_m": 0.3,
    "translation_z_m": 0.3,
}
"""Standard deviations of the physical model's Gaussian priors; the focal length's is 20 %.

_PARALLAX_SD, rad * m, is that of the 1/z terms, so that they stay put where one depth was seen.
"""


@dataclass(frozen=True)
class View:
    """What errors are measured in: the smaller side of the search picture, and its scale."""

    side_px: float
    px_per_rad: float

    @property
    def limit_px(self) -> float:
        """A quarter of the field of view: beyond it a target may be cut off."""
        return self.side_px / 4


@dataclass(frozen=True)
class Errors:
    """In search-camera px, over points that were held out; rms and p95 without gross outliers.

    share_within: share of all held-out points that lie within a quarter of the view.
    """

    rms_px: float
    p95_px: float
    share_within: float

    @classmethod
    def of(cls, error_px: Array, outlier: Mask, view: View) -> Errors:
        """error_px: (N,) lengths of the residuals, NaN where the model has no answer."""
        share_within = float(np.mean(error_px <= view.limit_px))
        good_px = np.nan_to_num(error_px[~outlier], nan=np.inf)
        if not np.isfinite(good_px).all():
            return cls(math.inf, math.inf, share_within)
        rms_px, p95_px = np.sqrt(np.mean(good_px**2)), np.percentile(good_px, 95)
        return cls(float(rms_px), float(p95_px), share_within)


@dataclass(frozen=True, eq=False)
class ModelFit:
    """One model: fitted to all points, and its errors when a fifth was held out.

    residual_px: (N, 2) search px of the fit that had not seen the held-out fifth.
    """

    model: Model
    errors: Errors
    residual_px: Array


@dataclass(frozen=True, eq=False)
class Fit:
    """All models that could be fitted, simplest first, and which was chosen."""

    points: Points
    lens: IdealLens
    view: View
    held_out: Mask
    outlier: Mask
    fits: tuple[ModelFit, ...]
    skipped: dict[str, str]
    chosen: ModelFit

    def check(self) -> None:
        """Raises DataError if the chosen model is too poor to be used."""
        if not self.chosen.errors.p95_px <= self.view.limit_px:
            raise DataError(
                f"the best model, {self.chosen.model.name}, misses by"
                f" {self.chosen.errors.p95_px:.0f} search px (p95), more than a quarter of the"
                f" view ({self.view.limit_px:.0f} px)",
                hint="give depths, mount the cameras closer, or check the mirror's axes and scale",
            )


def fit(points: Points, lens: IdealLens, view: View) -> Fit:
    """Fit every model that the points allow and choose one.

    lens: about what the wide camera has; its middle is the picture's. A fifth of the gazes is held
    out to judge the models; then each is fitted again to all points but the gross outliers, which
    are those that the best models call so. Chosen is the simplest whose held-out p95 lies within
    the noise of the best's. Raises DataError if the points are too few or fit no model.
    """
    points.check()
    held_out = _fifth(points.gaze)
    starting = _near_affine(points, view)
    focal = _check_orientation(points, starting)
    kinds, skipped = _possible(points)

    def fitted(kind: Kind, used: Mask) -> Model:
        return _fit_model(kind, points.only(used), lens, view, focal)

    judged = {kind: fitted(kind, starting & ~held_out) for kind in kinds}
    residual_px = {kind: _residual_px(model, points, view) for kind, model in judged.items()}
    outlier = _outliers(list(residual_px.values()), view)
    tested = held_out & ~outlier
    if outlier.mean() > _MOST_OUTLIERS or (~outlier & ~held_out).sum() < FEWEST * 3 // 4:
        raise DataError(
            f"{outlier.sum()} of {len(points)} points agree with no model",
            hint="were things moving, or is the depth wrong?",
        )
    fits = tuple(
        ModelFit(
            model=fitted(kind, ~outlier),
            errors=Errors.of(
                np.linalg.norm(residual_px[kind][held_out], axis=1), outlier[held_out], view
            ),
            residual_px=residual_px[kind],
        )
        for kind in kinds
    )
    return Fit(
        points=points,
        lens=lens,
        view=view,
        held_out=held_out,
        outlier=outlier,
        fits=fits,
        skipped=skipped,
        chosen=_choose(fits, tested),
    )


Kind = Literal["cubic", "cubic-1z", "physical"]


def _possible(points: Points) -> tuple[list[Kind], dict[str, str]]:
    """Which models can be fitted, simplest first, and why not the others."""
    if points.depth_m is not None:
        return ["cubic", "cubic-1z", "physical"], {}
    return ["cubic", "physical"], {"cubic-1z": "needs depths"}


def _fifth(gaze: Array) -> Mask:
    """Every fifth gaze of a fixed shuffle; looks at one gaze stay on one side."""
    _, which = np.unique(np.round(gaze, 6), axis=0, return_inverse=True)
    which = which.reshape(-1)
    shuffled = np.random.default_rng(0).permutation(which.max() + 1)
    fifth: Mask = shuffled[which] % 5 == 0
    return fifth


def _near_affine(points: Points, view: View) -> Mask:
    """Points that a plane through three of them can explain: the worst outliers gone.

    Least median of squares over random triples (Rousseeuw 1984). The curvature that an affine map
    lacks is part of the scale, so only what is far beyond it goes.
    """
    random = np.random.default_rng(0)
    count = len(points)
    design = np.concatenate([np.ones((count, 1)), _unit(points.wide_px)], axis=1)
    triples = np.argsort(random.random((_DRAWS, count)), axis=1)[:, :3]
    corners = design[triples]
    triples = triples[np.abs(np.linalg.det(corners)) > 0.1]
    if not len(triples):
        return np.ones(count, np.bool_)
    planes = np.linalg.solve(design[triples], points.gaze[triples])
    error_px = np.linalg.norm(design @ planes - points.gaze, axis=2) * view.px_per_rad
    best = error_px[np.argmin(np.median(error_px, axis=1))]
    near: Mask = best <= 8 * max(float(np.median(best)), view.side_px / 16)
    return near


def _check_orientation(points: Points, used: Mask) -> float:
    """Wide px per rad, near the middle. Raises DataError if the axes are turned."""
    centred = points.wide_px[used] - points.wide_px[used].mean(axis=0)
    gaze = points.gaze[used] - points.gaze[used].mean(axis=0)
    slope, *_ = np.linalg.lstsq(gaze, centred, rcond=None)  # rows: by pan, by tilt
    right, up = slope[0, 0], -slope[1, 1]
    if not (right > abs(slope[0, 1]) and up > abs(slope[1, 0])):
        raise DataError(
            "a gaze to the right or up does not move right or up in the wide picture",
            hint="set the signs of the mirror's axes, or swap them, in the rig's file",
        )
    return float(np.sqrt(right * up))


def _fit_model(kind: Kind, points: Points, lens: IdealLens, view: View, focal_px: float) -> Model:
    if kind == "physical":
        guess = _fit_polynomial(points, lens, view, with_depth=False)
        return _fit_physical(points, guess, lens, focal_px)
    return _fit_polynomial(points, lens, view, with_depth=kind == "cubic-1z")


def _fit_polynomial(points: Points, lens: IdealLens, view: View, *, with_depth: bool) -> Polynomial:
    """Of pixels or, if that is clearly better for most points, of angles.

    Better at each point if that had been left out: by the hat matrix, as for plain least squares.
    """
    pixels, angles = (
        _fit_polynomial_of(points, lens, view, from_angles, with_depth)
        for from_angles in (False, True)
    )
    miss, other = (_typical_left_out(model, points) for model in (pixels, angles))
    return angles if other < _CLEARLY * miss else pixels


def _typical_left_out(model: Polynomial, points: Points) -> float:
    """Gaze error, rad, of four fifths of the points: gross outliers do not count."""
    at = start_of(model.lens, points.wide_px, model.from_angles)
    basis = np.linalg.svd(model.terms(at, points.inverse_depth), full_matrices=False)[0]
    left = np.maximum(1 - np.sum(basis**2, axis=1), 1e-3)
    miss = model.gaze(points.wide_px, points.inverse_depth) - points.gaze
    return float(np.percentile(np.linalg.norm(miss, axis=1) / left, 80))


def _fit_polynomial_of(
    points: Points, lens: IdealLens, view: View, from_angles: bool, with_depth: bool
) -> Polynomial:
    at = start_of(lens, points.wide_px, from_angles)
    low, high = at.min(axis=0), at.max(axis=0)
    count = 13 if with_depth else 10
    blank = Polynomial(lens, from_angles, (low + high) / 2, (high - low) / 2, np.zeros((2, count)))
    design = blank.terms(at, points.inverse_depth)
    if np.linalg.matrix_rank(design[:, :10], tol=1e-6 * len(points)) < 10:
        raise DataError(
            "the points do not determine the ten terms of a cubic",
            hint="look at points in at least four rows and four columns",
        )
    start: Array = np.zeros((2, count))
    start[:, :10] = np.linalg.lstsq(design[:, :10], points.gaze, rcond=None)[0].T
    prior_sd = np.where(np.arange(count) < 10, np.inf, _PARALLAX_SD)
    unit = view.px_per_rad

    def fitted(axis: int) -> Array:
        return _robust(
            lambda values: (design @ values - points.gaze[:, axis]) * unit,
            start[axis],
            lambda _values: design * unit,
            prior_sd=prior_sd,
            least_sigma=_LEAST_SIGMA_PX,
        )

    # Together, pan and tilt would give every singular value twice, on which LAPACK may fail.
    return replace(blank, coefficients=np.stack([fitted(0), fitted(1)]))


def _fit_physical(points: Points, guess: Polynomial, lens: IdealLens, focal_px: float) -> Physical:
    """Residuals in wide px, where the noise is, and the priors."""
    start = Physical(lens.centre_px, guess, focal_px)
    mean = np.array([getattr(start, name) for name in PARAMETERS])
    sd = np.array([PRIOR_SD.get(name, 0.2 * focal_px) for name in PARAMETERS])

    def model(values: Array) -> Physical:
        numbers = dict(zip(PARAMETERS, (mean + sd * values).tolist(), strict=True))
        return replace(start, **numbers)

    def residual(values: Array) -> Array:
        return (model(values).wide_px(points.gaze, points.inverse_depth) - points.wide_px).ravel()

    start_at = np.zeros(len(PARAMETERS))
    return model(_robust(residual, start_at, None, prior_sd=np.ones_like(start_at)))


def _robust(
    residual: Callable[[Array], Array],
    start: Array,
    slopes: Callable[[Array], Array] | None,
    *,
    prior_sd: Array,
    least_sigma: float = 0.05,
) -> Array:
    """Huber's least squares, with the noise estimated from the residuals, about Gaussian priors.

    slopes: derivatives of the residual, if known. prior_sd: of each value about 0, or inf.
    Raises DataError if it does not converge to finite values.
    """
    from scipy.optimize import least_squares

    values = start
    count = residual(start).size
    prior = np.diag(1 / prior_sd)[np.isfinite(prior_sd)]
    for _ in range(3):
        sigma = max(1.4826 * float(np.median(np.abs(residual(values)))), least_sigma)

        def scaled(at: Array, sigma: float = sigma) -> Array:
            return np.concatenate([residual(at) / sigma, prior @ at])

        def steepness(at: Array, sigma: float = sigma) -> Array:
            assert slopes
            return np.concatenate([slopes(at) / sigma, prior])

        solve = partial(
            least_squares,
            scaled,
            values,
            jac=steepness if slopes else "2-point",
            loss=lambda z: _huber(z, count),
            max_nfev=200,
        )
        try:
            values = solve().x
        except np.linalg.LinAlgError:  # LAPACK's divide and conquer gave up on a sound matrix
            values = solve(tr_solver="lsmr").x
    if not np.isfinite(values).all():
        raise DataError("the fit does not converge", hint="are the points what they should be?")
    return values


def _huber(z: Array, count: int) -> Array:
    """Huber's loss of the first `count` squared residuals, as scipy wants it; the others stay."""
    loss = np.stack([z, np.ones_like(z), np.zeros_like(z)])
    far = (z > _HUBER**2) & (np.arange(z.size) < count)
    root = np.sqrt(z[far])
    loss[0, far] = 2 * _HUBER * root - _HUBER**2
    loss[1, far] = _HUBER / root
    loss[2, far] = -_HUBER / (2 * root**3)
    return loss


def _residual_px(model: Model, points: Points, view: View) -> Array:
    found = model.gaze(points.wide_px, points.inverse_depth)
    return (found - points.gaze) * view.px_per_rad


def _outliers(residuals_px: list[Array], view: View) -> Mask:
    """Gross errors in the eyes of all models that fit most points well."""
    lengths = np.nan_to_num(np.linalg.norm(residuals_px, axis=2), nan=np.inf)
    middle = np.median(lengths, axis=1)
    good = lengths[middle <= 2 * middle.min()]
    sigma = float(middle.min()) / 1.1774  # the median of a Rayleigh distribution is 1.1774 sigma
    gross_px = max(_OUTLIER_SIGMA * sigma, _LEAST_OUTLIER * view.side_px)
    return np.asarray((good > gross_px).all(axis=0))


def _choose(fits: tuple[ModelFit, ...], tested: Mask) -> ModelFit:
    best = min(fits, key=lambda found: found.errors.p95_px)
    error_px = np.linalg.norm(best.residual_px[tested], axis=1)
    random = np.random.default_rng(0)
    draws = random.choice(error_px, (_DRAWS, error_px.size))
    noise_px = float(np.percentile(draws, 95, axis=1).std())
    return next(f for f in fits if f.errors.p95_px <= best.errors.p95_px + 2 * noise_px)


def _unit(values: Array) -> Array:
    """Each column brought into [-1, 1]."""
    low, high = values.min(axis=0), values.max(axis=0)
    unit: Array = (values - (low + high) / 2) / ((high - low) / 2)
    return unit
