// Latency, rate and losses of one pipeline over the last minutes, on a canvas.

export const SPAN_S = 300;

// samples: [Unix s, rate Hz, p50 ms, p99 ms, dropped, failed] each.
export function drawChart(canvas, samples, now) {
  const box = canvas.getBoundingClientRect();
  if (!box.width) return;
  const dense = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(box.width * dense), height: Math.round(box.height * dense) });
  const context = canvas.getContext("2d");
  context.scale(dense, dense);
  context.font = "10px ui-sans-serif, system-ui, sans-serif";
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const left = 34, right = box.width - 2;
  const x = (time) => right - ((now - time) / SPAN_S) * (right - left);
  const shown = samples.filter(([time]) => now - time <= SPAN_S);
  const bands = [
    { top: 8, bottom: box.height * 0.56, unit: "ms", lines: [[3, "--weak"], [2, "--accent"]] },
    { top: box.height * 0.56 + 16, bottom: box.height - 3, unit: "Hz", lines: [[1, "--rate"]] },
  ];
  for (const { top, bottom, unit, lines } of bands) {
    const most = ceiling(Math.max(1, ...lines.flatMap(([k]) => shown.map((sample) => sample[k]))));
    const y = (value) => bottom - (value / most) * (bottom - top);
    context.strokeStyle = colour("--edge");
    context.lineWidth = 1;
    for (const value of [0, most]) {
      context.beginPath();
      context.moveTo(left, Math.round(y(value)) + 0.5);
      context.lineTo(right, Math.round(y(value)) + 0.5);
      context.stroke();
    }
    context.fillStyle = colour("--quiet");
    context.textAlign = "right";
    context.fillText(String(most), left - 4, top + 4);
    context.fillText(unit, left - 4, bottom);
    for (const [k, name] of lines) {
      context.strokeStyle = colour(name);
      context.lineWidth = 1.5;
      context.beginPath();
      let before = -Infinity;
      for (const sample of shown) {
        const place = [x(sample[0]), y(sample[k])];
        if (sample[0] - before > 5) context.moveTo(...place);
        else context.lineTo(...place);
        before = sample[0];
      }
      context.stroke();
    }
  }
  context.fillStyle = colour("--bad");
  const { bottom } = bands[1];
  const worst = Math.max(1, ...shown.map((sample) => sample[4] + sample[5]));
  for (const sample of shown) {
    const lost = sample[4] + sample[5];
    if (lost) context.fillRect(x(sample[0]) - 1, bottom - 2 - (8 * lost) / worst, 1.5, 2 + (8 * lost) / worst);
  }
}

// The next of 1, 2, 5, 10, 20 ...
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return Number(([1, 2, 5, 10].find((step) => step * power >= value) * power).toPrecision(1));
}
