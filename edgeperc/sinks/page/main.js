// Views for all streams, the bar, the keyboard; everything comes and goes by one socket.
import { Link } from "./link.js";
import { Objects } from "./objects.js";
import { Panels, duration, make, pill } from "./panels.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const PHONE_RATE_HZ = 8;
const PATIENCE_MS = 4000;
const KEYS = [
  ["1 … 9", "one sensor, large"],
  ["0 or Esc", "all sensors"],
  ["space", "freeze the page, and go on"],
  ["o", "overlay off and on"],
  ["[ and ]", "overlay fainter, stronger"],
  ["l", "legend off and on"],
  ["f", "full screen"],
  ["r", "record, and stop"],
  ["n", "next click begins an object"],
  ["b", "clicks say what is beside it, and back"],
  ["x", "follow the selected object no more"],
  ["?", "this list"],
];

let hello = null;
let greeted = 0;
let paused = false;
let alone = null;
let undrawn = 0;
const views = new Map();
const panels = new Panels();
const link = new Link({ onMessage: hear, onState: connected, onToken: askToken });
const objects = new Objects(link, toast);

function hear(header, payload) {
  if (header.kind === "hello") return greet(header);
  if (header.kind === "changed") return adapt(header);
  if (header.kind === "history") return panels.history(header.pipelines);
  if (header.kind === "status") return news(header);
  if (header.kind === "you") return void ($("flow").textContent = `${header.sent.toLocaleString("en")} shown · ${header.dropped.toLocaleString("en")} dropped`);
  if (header.kind === "over") {
    objects.over(header.source);
    return toast(`Your objects in ${header.source} are no longer followed`, OVER[header.why] ?? "");
  }
  if (header.kind === "answer") return toast(header.error, header.hint);
  show(header, payload);
}

const OVER = { expired: "The page said nothing for too long", stopping: "The daemon stops" };

function greet(header) {
  hello = header;
  clear();
  objects.colour = (id) => hello.colours.objects[id % hello.colours.objects.length];
  objects.hello(isPrompting() ? hello.promptable : {});
  $("record").hidden = !(hello.can_record && hello.role === "admin");
}

// Another app runs: its views come with the next news.
function adapt(header) {
  Object.assign(hello, header, { kind: "hello" });
  clear();
  objects.adapt(isPrompting() ? hello.promptable : {});
}

function clear() {
  greeted = performance.now();
  for (const view of views.values()) view.root.remove();
  views.clear();
}

const isPrompting = () => hello.role === "prompt" || hello.role === "admin";

function news(header) {
  panels.status(header);
  arrange(header.streams);
  recording(header.status?.recording);
}

// Views and layers for streams that are new.
function arrange(streams) {
  let changed = false;
  const viewOf = (source, base) => {
    const id = `${source}/${base}`;
    if (!views.has(id)) {
      const view = new View(source, base, hello.colours, {
        onPoint: (from, what) => (paused ? toast("Go on first (space)") : objects.point(from, what)),
        isPromptable: () => source in objects.promptable,
      });
      view.nameOf = (object) => objects.nameOf(source, object);
      view.stage.dataset.tool = objects.tool;
      view.root.ondblclick = (event) => !view.isPromptable() && event.target === view.lines && choose(alone === id ? null : id);
      views.set(id, view);
      changed = true;
    }
    return views.get(id);
  };
  for (const [kind, source] of streams) if (kind === "frame" || kind === "events") viewOf(source, kind);
  for (const key of streams) {
    const [kind] = key;
    if (kind === "frame" || kind === "events") continue;
    const source = kind === "search" ? hello.wide : key[1];
    const own = [...views.values()].filter((view) => view.source === source && view.base !== "results");
    if (!own.length && (kind === "search" || performance.now() - greeted < PATIENCE_MS)) continue; // its picture may come
    for (const view of own.length ? own : [viewOf(source, "results")]) {
      const before = view.layers.size;
      if (kind !== "search" || view.base === "frame") view.addLayer(key, look, !(kind === "labels" && source === hello.wide));
      changed ||= view.layers.size !== before;
    }
  }
  for (const view of [...views.values()])
    if (view.base === "results" && (views.has(`${view.source}/frame`) || views.has(`${view.source}/events`))) {
      view.root.remove();
      views.delete(view.id);
      changed = true;
    }
  if (changed) place();
}

// Put the views in the order of the rig's sensors.
function place() {
  const rank = { frame: 0, events: 1, results: 2 };
  const sources = hello.sources.map((source) => source.name);
  const all = [...views.values()].sort(
    (a, b) => sources.indexOf(a.source) - sources.indexOf(b.source) || rank[a.base] - rank[b.base]
  );
  views.clear();
  all.forEach((view, k) => {
    views.set(view.id, view);
    view.root.querySelector("kbd").textContent = k < 9 ? k + 1 : "";
    view.root.classList.toggle("first", all.length > 1 && view.source === hello.wide && view.base === "frame");
    if ($("views").children[k] !== view.root) $("views").insertBefore(view.root, $("views").children[k] ?? null);
  });
  $("nothing")?.remove();
  $("views").dataset.count = all.length;
  choose(views.has(alone) ? alone : null);
}

function choose(id) {
  alone = id;
  for (const view of views.values()) view.root.hidden = id !== null && view.id !== id;
  $("views").classList.toggle("alone", id !== null);
  look();
}

// Tell the daemon what is to be seen now; nothing else is encoded.
function look() {
  const still = paused || document.hidden;
  const shown = still ? [] : [...views.values()].filter((view) => !view.root.hidden);
  const keys = new Map(shown.flatMap((view) => view.keys).map((key) => [key.join("/"), key]));
  const rate = matchMedia("(max-width: 700px)").matches ? Math.min(PHONE_RATE_HZ, hello.rate_hz) : hello.rate_hz;
  link.look([...keys.values()], rate);
}

async function show(header, payload) {
  const base = header.kind === "frame" || header.kind === "events";
  const source = header.source;
  const tasks = [];
  for (const view of views.values()) {
    if (view.source !== source) continue;
    if (base && view.base !== header.kind) continue;
    const layer = base ? null : [...view.layers].find(([, each]) => each.kind === header.kind && each.key[2] === header.model);
    if (base || layer) tasks.push(view.take(header, payload, layer?.[0]));
  }
  if (header.kind === "instances") objects.saw(source, header.objects);
  await Promise.allSettled(tasks);
  undrawn++;
}

function draw() {
  if (!paused) for (const view of views.values()) view.draw();
  link.drawn(undrawn);
  undrawn = 0;
  requestAnimationFrame(draw);
}

function recording(status) {
  const on = Boolean(status?.running);
  $("record").setAttribute("aria-pressed", String(on));
  const drops = status?.dropped ? ` · ${status.dropped} dropped` : "";
  $("record").lastElementChild.textContent = on ? `${duration(status.seconds)} · ${(status.bytes / 1e6).toFixed(1)} MB${drops}` : "Record";
  $("record").title = on ? `Stop recording (r): ${status.path}` : "Record all sensors and results (r)";
}

async function record() {
  if ($("record").hidden || $("record").disabled) return;
  const on = $("record").getAttribute("aria-pressed") !== "true";
  $("record").disabled = true;
  const answer = await link.ask({ op: "record", on });
  $("record").disabled = false;
  if (!answer.ok) return toast(answer.error, answer.hint);
  recording(answer.recording);
  if (!on) toast(`Recorded ${duration(answer.recording.seconds)} into ${answer.recording.path}`, "", "good");
}

function pause() {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  document.body.classList.toggle("paused", paused);
  look();
}

function overlay() {
  document.body.classList.toggle("bare");
  for (const view of views.values()) view.drawLines();
}

function opacity(percent) {
  const value = Math.min(100, Math.max(0, percent));
  $("opacity").value = value;
  document.documentElement.style.setProperty("--overlay", value / 100);
}

function connected(state) {
  document.body.classList.toggle("offline", state !== "open");
  if (state !== "open") pill($("state"), "no connection", "bad");
}

function askToken() {
  $("login").showModal();
}

$("login-form").onsubmit = async (event) => {
  event.preventDefault();
  const answer = await fetch("/login", { method: "POST", body: $("token").value });
  $("login-error").textContent = answer.ok ? "" : "This token is not known.";
  if (!answer.ok) return;
  $("token").value = "";
  $("login").close();
  link.open();
};

function toast(words, hint = "", kind = "bad") {
  const entry = make("div", words, `toast ${kind}`);
  if (hint) entry.append(make("small", hint));
  $("toasts").append(entry);
  setTimeout(() => entry.remove(), 6000);
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input:not([type=range])")) return;
  const key = event.key;
  if (key === " " && event.target.matches("button")) return;
  const order = ORDERS[key] ?? (key >= "1" && key <= "9" ? () => digit(Number(key)) : null);
  if (!order) return;
  event.preventDefault();
  order();
}

function digit(number) {
  const view = [...views.values()][number - 1];
  if (!view) return;
  choose(alone === view.id ? null : view.id);
  view.root.focus({ preventScroll: false });
}

function fullScreen() {
  const view = views.get(alone) ?? [...views.values()].find((each) => each.root.contains(document.activeElement));
  if (view) view.fullScreen();
  else if (document.fullscreenElement) document.exitFullscreen();
  else document.documentElement.requestFullscreen?.();
}

const ORDERS = {
  0: () => choose(null),
  Escape: () => choose(null),
  " ": pause,
  o: overlay,
  "[": () => opacity(Number($("opacity").value) - 10),
  "]": () => opacity(Number($("opacity").value) + 10),
  l: () => document.body.classList.toggle("no-legend"),
  f: fullScreen,
  r: record,
  n: () => objects.begin(),
  b: () => objects.setTool(objects.tool === "background" ? "point" : "background"),
  x: () => objects.remove(),
  "?": () => $("keys").showModal(),
};

for (const [key, what] of KEYS) $("keys-list").append(make("dt", key), make("dd", what));
$("pause").onclick = pause;
$("record").onclick = record;
$("help").onclick = () => $("keys").showModal();
$("opacity").oninput = () => opacity(Number($("opacity").value));
document.addEventListener("keydown", press);
document.addEventListener("visibilitychange", () => hello && look());
setInterval(() => link.say({ op: "alive" }), 10_000);
opacity(50);
link.open();
requestAnimationFrame(draw);
