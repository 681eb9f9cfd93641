// The side: pipelines with their models and charts, sensors, processes, what went wrong.
import { drawChart } from "./chart.js";
import { short } from "./view.js";

const $ = (id) => document.getElementById(id);

export class Panels {
  constructor() {
    this.samples = new Map();
    this.cards = new Map();
  }

  history(pipelines) {
    for (const [name, samples] of Object.entries(pipelines)) this.samples.set(name, samples);
  }

  status({ status, newest, clients }) {
    if (!status) return;
    for (const [name, sample] of Object.entries(newest)) {
      const kept = this.samples.get(name) ?? [];
      if (kept.at(-1)?.[0] !== sample[0]) kept.push(sample);
      this.samples.set(name, kept.slice(-400));
    }
    const now = Math.max(...Object.values(newest).map((sample) => sample[0]), 0);
    $("app").textContent = status.app;
    document.title = `${status.app} · edgeperc`;
    pill($("state"), status.state, STATES[status.state]);
    $("uptime").textContent = duration(status.uptime_s);
    $("about").textContent = `edgeperc ${status.version} · ${clients} ${clients === 1 ? "page" : "pages"} open`;
    this.pipelines(status.pipelines, now);
    rows($("sensors"), status.sensors.map(sensorRow));
    rows($("workers"), status.workers.map(workerRow));
    $("workers-section").hidden = !status.workers.length;
    list($("notes"), status.notes);
    $("notes-section").hidden = !status.notes.length;
    this.messages(status);
  }

  messages(status) {
    const hints = new Map(status.sensors.filter((sensor) => sensor.hint).map((sensor) => [sensor.error, sensor.hint]));
    const found = status.errors.map((error) => [error, hints.get(error) ?? ""]);
    for (const worker of status.workers)
      if (worker.error && !status.errors.includes(worker.error)) found.push([`${worker.name}: ${worker.error}`, ""]);
    if (status.recording?.error) found.push([`recording: ${status.recording.error}`, ""]);
    const text = JSON.stringify(found);
    if (text === this.found) return;
    this.found = text;
    $("messages").hidden = !found.length;
    $("messages-list").replaceChildren(
      ...found.map(([error, hint]) => {
        const entry = make("li", error);
        if (hint) entry.append(make("small", hint));
        return entry;
      })
    );
  }

  pipelines(pipelines, now) {
    const names = pipelines.map((pipeline) => pipeline.name);
    for (const [name, card] of this.cards)
      if (!names.includes(name)) {
        card.root.remove();
        this.cards.delete(name);
      }
    for (const pipeline of pipelines) {
      if (!this.cards.has(pipeline.name)) this.cards.set(pipeline.name, newCard(pipeline.name));
      fillCard(this.cards.get(pipeline.name), pipeline);
      drawChart(this.cards.get(pipeline.name).chart, this.samples.get(pipeline.name) ?? [], now);
    }
  }
}

function newCard(name) {
  const root = make("article", "", "pipeline");
  const head = make("header");
  const lamp = make("i", "", "lamp");
  const model = make("span", "", "model");
  head.append(lamp, make("h3", name), make("span", "", "grow"), model);
  const provider = make("p", "", "quiet provider");
  const figures = make("dl", "", "figures");
  const chart = document.createElement("canvas");
  chart.className = "chart";
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", `Latency and rate of ${name} over five minutes`);
  const note = make("p", "", "quiet note");
  root.append(head, provider, figures, chart, note);
  $("pipelines").append(root);
  return { root, lamp, model, provider, figures, chart, note };
}

function fillCard(card, { model, meter, error, note }) {
  const total = meter.stages.find((row) => row.stage === "total");
  card.lamp.className = `lamp ${error ? "bad" : meter.rate_hz ? "good" : "idle"}`;
  card.lamp.title = error || (meter.rate_hz ? "gives results" : "gives no results now");
  card.model.textContent = model.name;
  card.provider.textContent = [model.engine, model.provider.replace("ExecutionProvider", ""), model.precision, model.sha256.slice(0, 8)]
    .filter(Boolean)
    .join(" · ");
  card.provider.title = model.sha256 && `sha256 ${model.sha256}`;
  const figures = [
    ["p50", total ? milliseconds(total.p50_ms) : "–", "accent"],
    ["p99", total ? milliseconds(total.p99_ms) : "–", "weak"],
    ["rate", `${meter.rate_hz.toFixed(1)} Hz`, "rate"],
    ["dropped", short(meter.dropped), ""],
    ["failed", short(meter.failed), meter.failed ? "bad" : ""],
  ];
  card.figures.replaceChildren(
    ...figures.map(([name, value, kind]) => {
      const cell = make("div", "", kind);
      cell.append(make("dt", name), make("dd", value));
      return cell;
    })
  );
  card.figures.title = meter.stages.map((row) => `${row.stage} ${row.p50_ms.toFixed(2)} / ${row.p99_ms.toFixed(2)} ms`).join("\n");
  card.note.textContent = note;
  card.note.hidden = !note;
}

const STATES = { serving: "good", starting: "idle", degraded: "bad", stopping: "idle" };
const LAMPS = { running: "good", lost: "bad", failed: "bad", ended: "idle", starting: "idle", restarting: "bad" };

function sensorRow(sensor) {
  const seen = [[sensor.frames, "frames"], [sensor.events, "events"], [sensor.moves, "moves"]];
  const said = seen.filter(([count]) => count).map(([count, what]) => `${short(count)} ${what}`);
  const { dropped } = sensor.counters;
  return {
    lamp: LAMPS[sensor.state],
    title: sensor.error || sensor.state,
    name: sensor.name,
    says: said.join(", ") || (sensor.state === "running" ? "nothing yet" : ""),
    wrong: [sensor.state === "running" ? "" : sensor.state, dropped ? `${short(dropped)} left out` : ""],
  };
}

function workerRow(worker) {
  const restarts = worker.restarts ? `${worker.restarts} ${worker.restarts === 1 ? "restart" : "restarts"}` : "";
  return {
    lamp: LAMPS[worker.state],
    title: worker.error || `${worker.state}, pid ${worker.pid}`,
    name: worker.name,
    says: worker.rss_bytes ? `${(worker.rss_bytes / 1e6).toFixed(0)} MB` : "",
    wrong: [restarts, worker.state === "running" ? "" : worker.state],
  };
}

function rows(table, content) {
  table.tBodies[0].replaceChildren(
    ...content.map(({ lamp, title, name, says, wrong }) => {
      const row = make("tr");
      row.title = title;
      const head = make("th");
      head.scope = "row";
      head.append(make("i", "", `lamp ${lamp}`), name);
      const cell = make("td", says);
      for (const word of wrong.filter(Boolean)) cell.append(says ? " · " : "", make("span", word, "bad"));
      row.append(head, cell);
      return row;
    })
  );
}

function list(parent, lines) {
  parent.replaceChildren(...lines.map((line) => make("li", line)));
}

export function make(name, text = "", kind = "") {
  const element = document.createElement(name);
  if (text) element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

export function pill(element, text, kind) {
  element.textContent = text;
  element.className = `pill ${kind}`;
}

export function duration(seconds) {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

function milliseconds(value) {
  return value >= 100 ? `${value.toFixed(0)} ms` : `${value.toFixed(value >= 10 ? 1 : 2)} ms`;
}
