"""The selective scan in ONNX: one node of our own, and what it means in standard operators.

    model = with_portable_scan(onnx.load("exported.onnx"))   # runs wherever ONNX does
    model = expand_scans(model)                              # for parsers without functions

`nets/selective_scan.py` exports each scan as one node `edgeperc::SelectiveScan` (version 1): inputs
u, delta (batch, channels, L), A (channels, N), B, C (batch, groups, N, L), D, delta_bias
(channels,); attribute softplus 0 or 1; output y (batch, channels, L). All are float32.
"""

from __future__ import annotations

import onnx
from onnx import inliner, parser

from edgeperc.errors import ModelError

DOMAIN, NAME = "edgeperc", "SelectiveScan"
OLDEST_OPSET = 15
"""Whose Shape operator the portable form uses."""

# The sequence is cut into about sqrt(L) parts of about sqrt(L) steps. All parts step together, from
# zero; then what each leaves behind is carried from part to part; then all step together again,
# from what arrives. That is two passes of few long steps instead of one of many short ones, and it
# adds rounding errors up over sqrt(L) numbers instead of L.
_PORTABLE = """
<domain: "edgeperc", opset_import: ["" : OPSET]>
SelectiveScan <softplus> (u, delta, A, B, C, D, delta_bias) => (y)
{
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()

  batch = Shape <start = 0, end = 1> (B)
  groups = Shape <start = 1, end = 2> (B)
  states = Shape <start = 2, end = 3> (B)
  length = Shape <start = 3, end = 4> (B)
  channels = Shape <start = 1, end = 2> (u)
  each = Div (channels, groups)
  rounds = Cast <to = 1> (length)
  root = Sqrt (rounds)
  ceiling = Ceil (root)
  steps = Cast <to = 7> (ceiling)
  before = Sub (length, one)
  filled = Div (before, steps)
  parts = Add (filled, one)
  padded = Mul (parts, steps)
  missing = Sub (padded, length)
  no_pads = Constant <value_ints = [0, 0, 0, 0, 0]> ()
  pads = Concat <axis = 0> (no_pads, missing)
  no_pads_4 = Constant <value_ints = [0, 0, 0, 0, 0, 0, 0]> ()
  pads_4 = Concat <axis = 0> (no_pads_4, missing)
  as_values = Concat <axis = 0> (batch, groups, one, each, parts, steps)
  as_gates = Concat <axis = 0> (batch, groups, states, one, parts, steps)
  as_pace = Concat <axis = 0> (groups, each, states)

  bias = Unsqueeze (delta_bias, one)
  logits = Add (delta, bias)
  positive = Softplus (logits)
  softplus_int = Constant <value_int : int = @softplus> ()
  chosen = Cast <to = 9> (softplus_int)
  sizes = Where (chosen, positive, logits)
  weighted = Mul (sizes, u)

  sizes_pad = Pad (sizes, pads)
  sizes_6 = Reshape (sizes_pad, as_values)
  size = Transpose <perm = [5, 0, 4, 1, 2, 3]> (sizes_6)
  weighted_pad = Pad (weighted, pads)
  weighted_6 = Reshape (weighted_pad, as_values)
  value = Transpose <perm = [5, 0, 4, 1, 2, 3]> (weighted_6)
  B_pad = Pad (B, pads_4)
  B_6 = Reshape (B_pad, as_gates)
  gate_in = Transpose <perm = [5, 0, 4, 1, 2, 3]> (B_6)
  C_pad = Pad (C, pads_4)
  C_6 = Reshape (C_pad, as_gates)
  gate_out = Transpose <perm = [5, 0, 4, 1, 2, 3]> (C_6)
  A_3 = Reshape (A, as_pace)
  pace = Transpose <perm = [0, 2, 1]> (A_3)

  part_shape = Concat <axis = 0> (batch, parts, groups, states, each)
  empty = ConstantOfShape (part_shape)
  own = Scan <num_scan_inputs = 3, body = advance
    (float[b, m, g, n, e] old, float[b, m, g, i, e] size_t, float[b, m, g, i, e] value_t,
     float[b, m, g, n, i] in_t) => (float[b, m, g, n, e] new)
    {
      exponent = Mul (size_t, pace)
      decay = Exp (exponent)
      kept = Mul (decay, old)
      added = Mul (value_t, in_t)
      new = Add (kept, added)
    }> (empty, size, value, gate_in)

  spans_keep = ReduceSum <keepdims = 0> (size, zero)
  spans = Mul (spans_keep, pace)
  fading = Exp (spans)
  fading_first = Transpose <perm = [1, 0, 2, 3, 4]> (fading)
  own_first = Transpose <perm = [1, 0, 2, 3, 4]> (own)
  state_shape = Concat <axis = 0> (batch, groups, states, each)
  nothing = ConstantOfShape (state_shape)
  after_all, arriving_first = Scan <num_scan_inputs = 2, body = carry
    (float[b, g, n, e] arriving_in, float[b, g, n, e] fading_m, float[b, g, n, e] own_m)
      => (float[b, g, n, e] leaving, float[b, g, n, e] arriving_out)
    {
      arriving_out = Identity (arriving_in)
      faded = Mul (fading_m, arriving_in)
      leaving = Add (faded, own_m)
    }> (nothing, fading_first, own_first)
  arriving = Transpose <perm = [1, 0, 2, 3, 4]> (arriving_first)

  after, given = Scan <num_scan_inputs = 4, body = answer
    (float[b, m, g, n, e] old, float[b, m, g, i, e] size_t, float[b, m, g, i, e] value_t,
     float[b, m, g, n, i] in_t, float[b, m, g, n, i] out_t)
      => (float[b, m, g, n, e] new, float[b, m, g, e] given_t)
    {
      exponent = Mul (size_t, pace)
      decay = Exp (exponent)
      kept = Mul (decay, old)
      added = Mul (value_t, in_t)
      new = Add (kept, added)
      seen = Mul (new, out_t)
      over = Constant <value_ints = [-2]> ()
      given_t = ReduceSum <keepdims = 0> (seen, over)
    }> (arriving, size, value, gate_in, gate_out)

  given_back = Transpose <perm = [1, 3, 4, 2, 0]> (given)
  as_output = Concat <axis = 0> (batch, channels, padded)
  given_3 = Reshape (given_back, as_output)
  given_cut = Slice (given_3, zero, length, two)
  skip = Unsqueeze (D, one)
  skipped = Mul (skip, u)
  y = Add (given_cut, skipped)
}
"""


def with_portable_scan(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose scan nodes carry their meaning along, as a function in the same file.

    The nodes stay single nodes: a run time that has a kernel for them finds them by domain and
    type; any other, such as onnxruntime, runs the function. Its shapes may be dynamic; A must not
    be above 0. Raises ModelError if the model is of an opset below 15.
    """
    version = _opset(model)
    if version < OLDEST_OPSET:
        raise ModelError(
            f"the model is of ONNX opset {version}, a portable scan needs {OLDEST_OPSET}",
            hint="export it with opset_version=17",
        )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [each for each in copy.functions if (each.domain, each.name) != (DOMAIN, NAME)]
    del copy.functions[:]
    copy.functions.extend([*kept, parser.parse_function(_PORTABLE.replace("OPSET", str(version)))])
    if DOMAIN not in {each.domain for each in copy.opset_import}:
        copy.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    copy.ir_version = max(copy.ir_version, 8)  # the first with functions in a model
    return copy


def expand_scans(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with standard operators in place of scan nodes; see `with_portable_scan`."""
    expanded = inliner.inline_selected_functions(with_portable_scan(model), [(DOMAIN, NAME)])
    kept = [each for each in expanded.opset_import if each.domain != DOMAIN]
    del expanded.opset_import[:]
    expanded.opset_import.extend(kept)
    return expanded


def _opset(model: onnx.ModelProto) -> int:
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    return max(versions, default=0)
