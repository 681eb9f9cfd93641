// One sensor: its picture, the overlay in the picture's own pixels, and lines and words above.
import { inflate, paintMask, paintRuns, pixel } from "./wire.js";

const DARKER = ["#4f8dff", "#3566c8", "#244682"];
const BRIGHTER = ["#7a5a22", "#c4862a", "#ffb13d"];
const YELLOW = "#ffdc3c", GREEN = "#5aff78";
const UNKNOWN = 255;

export class View {
  // base: "frame", "events" or "results". palette: of the hello message.
  constructor(source, base, palette, { onPoint, isPromptable }) {
    Object.assign(this, { source, base, palette, onPoint, isPromptable });
    this.id = `${source}/${base}`;
    this.layers = new Map(); // key -> {name, kind, on, canvas, header}
    this.size = null;
    this.jobs = new Map();
    this.times = [];
    this.marks = [];
    this.build();
    this.listen();
  }

  build() {
    const root = (this.root = document.getElementById("view-template").content.firstElementChild.cloneNode(true));
    const find = (name) => root.querySelector(name);
    root.dataset.id = this.id;
    root.setAttribute("aria-label", `${this.source}, ${WHAT[this.base]}`);
    find("h2").textContent = this.source;
    find(".what").textContent = WHAT[this.base];
    this.stage = find(".stage");
    [this.picture, this.mask, this.lines] = [".picture", ".mask", ".lines"].map(find);
    this.chips = find(".layers");
    this.when = find(".when");
    this.legend = find(".legend");
    this.empty = find(".empty");
    this.empty.textContent = this.base === "results" ? "" : "Waiting";
    this.stage.classList.toggle("promptable", this.isPromptable());
    new ResizeObserver(() => this.drawLines()).observe(this.stage);
    find(".full").onclick = () => this.fullScreen();
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.();
  }

  get baseKey() {
    return this.base === "results" ? null : [this.base, this.source, ""];
  }

  get keys() {
    const on = [...this.layers.values()].filter((layer) => layer.on).map((layer) => layer.key);
    return this.baseKey ? [this.baseKey, ...on] : on;
  }

  // on: whether it is shown before anybody has said so.
  addLayer(key, onChange, on) {
    const [kind, , model] = key;
    const id = key.join("/");
    if (this.layers.has(id)) return;
    const chip = document.createElement("button");
    chip.textContent = kind === "search" ? "search map" : model;
    chip.title = { labels: "label map", boxes: "boxes", instances: "objects", search: "where the search expects targets" }[kind];
    chip.setAttribute("aria-pressed", String(on));
    const layer = { key, kind, on, canvas: document.createElement("canvas"), header: null, chip };
    chip.onclick = () => {
      layer.on = !layer.on;
      chip.setAttribute("aria-pressed", String(layer.on));
      this.compose();
      this.drawLines();
      this.writeLegend();
      onChange();
    };
    this.chips.append(chip);
    this.layers.set(id, layer);
  }

  // Decode and keep; `draw` shows it. Resolves when it may be drawn.
  async take(header, payload, layerId) {
    if (header.kind === "frame") {
      const image = await createImageBitmap(new Blob([payload], { type: "image/jpeg" }));
      this.jobs.set("base", () => this.drawPicture(header, image));
    } else if (header.kind === "events") {
      const steps = await inflate(payload);
      this.jobs.set("base", () => this.drawEvents(header, steps));
    } else {
      const layer = this.layers.get(layerId);
      if (!layer) return;
      const pixels = header.kind === "search" ? await inflate(payload) : payload;
      this.jobs.set(layerId, () => this.drawLayer(layer, header, pixels));
    }
  }

  // Draw all that has come since the last time.
  draw() {
    if (!this.jobs.size) return;
    for (const job of this.jobs.values()) job();
    this.jobs.clear();
    this.compose();
    this.drawLines();
  }

  resize(width, height) {
    if (!width || !height || (this.size?.[0] === width && this.size[1] === height)) return;
    this.size = [width, height];
    this.stage.style.setProperty("--ratio", `${width} / ${height}`);
    this.stage.style.setProperty("--shape", width / height);
    Object.assign(this.mask, { width, height });
    if (this.base !== "frame") Object.assign(this.picture, { width, height });
    this.empty.textContent = "";
  }

  drawPicture(header, image) {
    this.resize(header.width, header.height);
    Object.assign(this.picture, { width: image.width, height: image.height });
    this.picture.getContext("2d").drawImage(image, 0, 0);
    image.close();
    this.count(header);
  }

  drawEvents(header, steps) {
    this.resize(header.width, header.height);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const none = dark ? "#0b0d10" : "#f4f5f7";
    const table = Uint32Array.from([...DARKER, none, ...BRIGHTER], (colour) => pixel(colour));
    paint(this.picture, header.width, header.height, (pixels) => {
      for (let i = 0; i < steps.length; i++) pixels[i] = table[steps[i]];
    });
    this.count(header, `${short(header.count)} ev / ${header.window_ms} ms`);
  }

  drawLayer(layer, header, payload) {
    layer.header = header;
    if (this.base === "results" && header.width) this.resize(header.width, header.height);
    const { width, height } = header;
    if (header.kind === "labels") {
      const table = Uint32Array.from(this.palette.classes, (colour, label) => (label === UNKNOWN ? 0 : pixel(colour)));
      paint(layer.canvas, width, height, (pixels) => paintRuns(payload, table, pixels));
    } else if (header.kind === "instances") {
      paint(layer.canvas, width, height, (pixels) => {
        pixels.fill(0);
        for (const object of header.objects)
          paintMask(object.rle, pixel(this.objectColour(object.id), object.visible >= 0.5 ? 255 : 90), pixels, width, height);
      });
    } else if (header.kind === "search") {
      paint(layer.canvas, header.columns, header.rows, (pixels) => {
        for (let i = 0; i < payload.length; i++) pixels[i] = ((payload[i] << 24) | (0 << 16) | (120 << 8) | 255) >>> 0;
      });
    }
    if (this.base === "results") this.count(header);
    this.writeLegend();
  }

  objectColour(id) {
    return this.palette.objects[id % this.palette.objects.length];
  }

  compose() {
    const context = this.mask.getContext("2d");
    const { width, height } = this.mask;
    context.clearRect(0, 0, width, height);
    for (const layer of this.layers.values()) {
      if (!layer.on || !layer.header || layer.kind === "boxes") continue;
      context.imageSmoothingEnabled = layer.kind === "search";
      context.drawImage(layer.canvas, 0, 0, width, height);
    }
  }

  // Where the picture lies in the stage, which may be wider or higher than it: scale and offsets.
  fit() {
    const box = this.stage.getBoundingClientRect();
    const [width, height] = this.size ?? [1, 1];
    const scale = Math.min(box.width / width, box.height / height) || 1;
    return { scale, left: (box.width - width * scale) / 2, top: (box.height - height * scale) / 2, box };
  }

  // Sensor pixels of a mouse event; null beside the picture.
  place(event) {
    if (!this.size) return null;
    const { scale, left, top, box } = this.fit();
    const x = (event.clientX - box.left - left) / scale, y = (event.clientY - box.top - top) / scale;
    const inside = x >= 0 && y >= 0 && x <= this.size[0] && y <= this.size[1];
    return inside ? [x, y] : null;
  }

  clamp(event) {
    const { scale, left, top, box } = this.fit();
    return [
      Math.min(Math.max((event.clientX - box.left - left) / scale, 0), this.size[0]),
      Math.min(Math.max((event.clientY - box.top - top) / scale, 0), this.size[1]),
    ];
  }

  drawLines() {
    if (!this.size) return;
    const { scale, left, top, box } = this.fit();
    const dense = window.devicePixelRatio || 1;
    const width = Math.round(box.width * dense), height = Math.round(box.height * dense);
    if (this.lines.width !== width || this.lines.height !== height) Object.assign(this.lines, { width, height });
    const context = this.lines.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, box.width, box.height);
    context.font = "600 11px ui-sans-serif, system-ui, sans-serif";
    context.textBaseline = "alphabetic";
    const at = ([x, y]) => [left + x * scale, top + y * scale];
    if (!document.body.classList.contains("bare"))
      for (const layer of this.layers.values()) if (layer.on && layer.header) LINES[layer.kind]?.(this, context, layer.header, at);
    this.drawMarks(context, at);
  }

  drawMarks(context, at) {
    const now = performance.now();
    this.marks = this.marks.filter((mark) => now - mark.time < 1500);
    for (const { place, onIt } of this.marks) {
      const [x, y] = at(place);
      context.beginPath();
      context.arc(x, y, 5, 0, 7);
      context.fillStyle = onIt ? GREEN : "#ff5468";
      context.fill();
      context.strokeStyle = "#000";
      context.stroke();
    }
    if (this.drag?.box) {
      const [a, b] = [at(this.drag.from), at(this.drag.to)];
      context.setLineDash([5, 4]);
      context.strokeStyle = "#fff";
      context.lineWidth = 1.5;
      context.strokeRect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
      context.setLineDash([]);
    }
  }

  mark(place, onIt) {
    this.marks.push({ place, onIt, time: performance.now() });
    this.drawLines();
    setTimeout(() => this.drawLines(), 1600);
  }

  listen() {
    const canvas = this.lines;
    canvas.oncontextmenu = (event) => this.isPromptable() && event.preventDefault();
    canvas.onpointerdown = (event) => {
      const from = this.place(event);
      if (!this.isPromptable() || !from || event.button > 2 || event.button === 1) return;
      this.drag = { from, to: from, x: event.clientX, y: event.clientY, back: event.button === 2 || event.shiftKey, box: false };
      canvas.setPointerCapture(event.pointerId);
    };
    canvas.onpointermove = (event) => {
      if (!this.drag) return;
      this.drag.to = this.clamp(event);
      const far = Math.hypot(event.clientX - this.drag.x, event.clientY - this.drag.y) > 5;
      const may = event.pointerType === "mouse" || this.stage.dataset.tool === "box";
      if (far && !this.drag.back && may) this.drag.box = true;
      this.drawLines();
    };
    canvas.onpointerup = () => {
      const drag = this.drag;
      this.drag = null;
      if (!drag) return;
      if (drag.box) {
        const [x, y] = [0, 1].map((k) => [drag.from[k], drag.to[k]].sort((a, b) => a - b));
        if (x[1] - x[0] >= 1 && y[1] - y[0] >= 1) this.onPoint(this, { box: [x[0], y[0], x[1], y[1]] });
      } else this.onPoint(this, { point: drag.from, back: drag.back });
      this.drawLines();
    };
    canvas.onpointercancel = () => {
      this.drag = null;
      this.drawLines();
    };
  }

  count(header, more = "") {
    const now = performance.now();
    this.times = [...this.times.filter((time) => now - time < 2000), now];
    const span = now - this.times[0];
    const rate = span > 0 ? ((this.times.length - 1) * 1000) / span : 0;
    this.when.textContent = [`#${header.seq}`, rate ? `${rate.toFixed(0)} Hz` : ""].filter(Boolean).join(" · ");
    if (!more) return;
    const words = document.createElement("span");
    words.className = "more";
    words.textContent = `${more} · `;
    this.when.prepend(words);
  }

  writeLegend() {
    const words = [];
    for (const layer of this.layers.values()) {
      if (!layer.on || !layer.header) continue;
      if (layer.kind === "labels") layer.header.classes.forEach((name, k) => words.push([name, this.palette.classes[k]]));
      if (layer.kind === "search") words.push(["expected targets", "#ff7800"], ["gaze", YELLOW], ["tracks", GREEN]);
    }
    const text = JSON.stringify(words);
    if (this.legendText === text) return;
    this.legendText = text;
    this.legend.replaceChildren(
      ...words.map(([name, colour]) => {
        const entry = document.createElement("span");
        const swatch = document.createElement("i");
        swatch.style.background = colour;
        entry.append(swatch, name);
        return entry;
      })
    );
  }
}

const WHAT = { frame: "frames", events: "events", results: "results" };

const LINES = {
  boxes(view, context, header, at) {
    for (const [x0, y0, x1, y1, score, index] of header.boxes) {
      const colour = view.objectColour(index + 1);
      const [a, b] = [at([x0, y0]), at([x1, y1])];
      context.strokeStyle = colour;
      context.lineWidth = 1.5;
      context.strokeRect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
      if (b[0] - a[0] > 60) tag(context, `${header.classes[index]} ${score.toFixed(2)}`, a, colour);
    }
  },
  instances(view, context, header, at) {
    for (const object of header.objects) {
      const [x0, y0, x1, y1] = object.box;
      if (x1 > x0 && y1 > y0) tag(context, view.nameOf?.(object) ?? String(object.id), at([x0, y0]), view.objectColour(object.id));
    }
  },
  search(view, context, header, at) {
    context.lineWidth = 1.5;
    context.strokeStyle = GREEN;
    for (const [x, y] of header.tracks) {
      context.beginPath();
      context.arc(...at([x, y]), 7, 0, 7);
      context.stroke();
    }
    const trail = header.trail.map(at);
    context.strokeStyle = context.fillStyle = YELLOW;
    trail.forEach((place, k) => {
      context.globalAlpha = (k + 1) / trail.length;
      context.beginPath();
      context.arc(...place, 2.2, 0, 7);
      context.fill();
    });
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.beginPath();
    header.look.map(at).forEach((place, k) => (k ? context.lineTo(...place) : context.moveTo(...place)));
    context.closePath();
    context.stroke();
  },
};

function tag(context, words, [x, y], colour) {
  const width = context.measureText(words).width + 8;
  const top = Math.max(y - 15, 0);
  context.fillStyle = colour;
  context.fillRect(x - 1, top, width, 15);
  const [r, g, b] = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  context.fillStyle = 0.3 * r + 0.6 * g + 0.1 * b > 120 ? "#000" : "#fff";
  context.fillText(words, x + 3, top + 11.5);
}

function paint(canvas, width, height, fill) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = new ImageData(width, height);
  fill(new Uint32Array(image.data.buffer));
  context.putImageData(image, 0, 0);
}

export function short(number) {
  if (number >= 1e9) return `${(number / 1e9).toFixed(1)} G`;
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)} M`;
  return number >= 1e4 ? `${(number / 1e3).toFixed(0)} k` : String(number);
}
