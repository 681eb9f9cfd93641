// Things that this page has pointed at, and how it points.
import { make } from "./panels.js";

const $ = (id) => document.getElementById(id);

export class Objects {
  // link: to ask by. toast: says what went wrong.
  constructor(link, toast) {
    Object.assign(this, { link, toast });
    this.own = new Map(); // source -> Map(number -> {instance})
    this.seen = new Map(); // source -> objects of the newest result
    this.selected = null; // {source, number}
    this.next = 1;
    this.promptable = {};
    this.setTool("point");
    for (const button of document.querySelectorAll("[data-tool]")) button.onclick = () => this.setTool(button.dataset.tool);
    $("object-new").onclick = () => this.begin();
    $("object-reset").onclick = () => this.reset();
  }

  hello(promptable) {
    this.own.clear();
    this.selected = null;
    this.adapt(promptable);
  }

  // Other pipelines can be prompted now; objects of one that ended are told of by `over`.
  adapt(promptable) {
    this.promptable = promptable;
    $("objects").hidden = !Object.keys(promptable).length;
    this.write();
  }

  setTool(tool) {
    this.tool = tool;
    for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    for (const stage of document.querySelectorAll(".stage")) stage.dataset.tool = tool;
  }

  // A click or a box in a view. A box begins an object; a click is about the selected one.
  async point(view, { point, back, box }) {
    const { source } = view;
    back = back || (this.tool === "background" && !box);
    const old = !box && this.selected?.source === source ? this.selected.number : null;
    if (back && old === null) return this.toast("Select an object first, then say what does not belong to it");
    const number = old ?? this.next++;
    if (point) view.mark(point, !back);
    const order = { op: "point", source, number };
    if (point) order.points = [[...point, !back]];
    if (box) order.box = box;
    const answer = await this.link.ask(order);
    if (!answer.ok) return this.toast(answer.error, answer.hint);
    if (!this.own.has(source)) this.own.set(source, new Map());
    this.own.get(source).set(number, { instance: answer.instance });
    this.selected = { source, number };
    this.write();
  }

  begin() {
    this.selected = null;
    this.setTool("point");
    this.write();
  }

  async remove(source = this.selected?.source, number = this.selected?.number) {
    if (number === undefined) return;
    const answer = await this.link.ask({ op: "drop", source, number });
    if (!answer.ok) this.toast(answer.error, answer.hint);
    this.own.get(source)?.delete(number);
    if (this.selected?.number === number) this.selected = null;
    this.write();
  }

  async reset() {
    for (const [source, objects] of this.own) {
      if (!objects.size) continue;
      const answer = await this.link.ask({ op: "drop", source });
      if (!answer.ok) this.toast(answer.error, answer.hint);
      objects.clear();
    }
    this.selected = null;
    this.next = 1;
    this.write();
  }

  over(source) {
    this.own.delete(source);
    if (this.selected?.source === source) this.selected = null;
    this.write();
  }

  // A result: what is followed now, whoever asked for it.
  saw(source, objects) {
    this.seen.set(source, objects);
    this.write();
  }

  numberOf(source, instance) {
    for (const [number, own] of this.own.get(source) ?? []) if (own.instance === instance) return number;
    return null;
  }

  nameOf(source, object) {
    const number = this.numberOf(source, object.id);
    return object.name || (number === null ? `app ${object.id}` : `yours ${number}`);
  }

  write() {
    const rows = [];
    for (const [source, objects] of this.seen)
      for (const object of objects) {
        const number = this.numberOf(source, object.id);
        rows.push({ source, number, id: object.id, name: this.nameOf(source, object), says: object.visible >= 0.5 ? object.score.toFixed(2) : "out of sight" });
      }
    rows.sort((a, b) => (a.number === null) - (b.number === null) || a.id - b.id);
    const text = JSON.stringify([rows, this.selected]);
    if (text === this.text) return;
    this.text = text;
    $("objects-count").textContent = rows.length || "";
    if (!rows.length) return $("objects-list").replaceChildren(make("li", "Click on something in the picture, or drag a box around it.", "quiet"));
    $("objects-list").replaceChildren(...rows.map((row) => this.entry(row)));
  }

  entry({ source, number, id, name, says }) {
    const entry = make("li");
    const swatch = make("i", "", "swatch");
    swatch.style.background = this.colour?.(id) ?? "";
    const choose = make("button", "", "choose");
    choose.append(swatch, make("span", name), make("span", "", "grow"), make("span", says, "quiet"));
    entry.append(choose);
    if (number === null) {
      choose.disabled = true;
      choose.title = "Of the app or of another client";
    } else {
      const isSelected = this.selected?.source === source && this.selected.number === number;
      choose.setAttribute("aria-pressed", String(isSelected));
      choose.title = "Clicks are about this object";
      choose.onclick = () => {
        this.selected = isSelected ? null : { source, number };
        this.write();
      };
      const remove = make("button", "×", "remove");
      remove.setAttribute("aria-label", `Remove ${name}`);
      remove.title = "Follow it no more (x)";
      remove.onclick = () => this.remove(source, number);
      entry.append(remove);
    }
    return entry;
  }
}
