// The socket: comes back by itself, says what is looked at, and what has been drawn.
import { unpack } from "./wire.js";

export class Link {
  constructor({ onMessage, onState, onToken }) {
    Object.assign(this, { onMessage, onState, onToken });
    this.wanted = [];
    this.rate = 15;
    this.asked = new Map();
    this.asks = 0;
    this.wait = 500;
    this.undrawn = 0;
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = (this.socket = new WebSocket(`${scheme}://${location.host}/ws`));
    socket.binaryType = "arraybuffer";
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.wait = 500;
      this.undrawn = 0;
      this.onState("open");
      this.look(this.wanted, this.rate);
    };
    socket.onmessage = (event) => this.hear(event.data);
    socket.onclose = async () => {
      this.onState("closed");
      for (const give of this.asked.values()) give({ ok: false, error: "The connection was lost", hint: "" });
      this.asked.clear();
      if (!opened && (await this.needsToken())) return this.onToken();
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(this.wait * 1.6, 5000);
    };
  }

  async needsToken() {
    try {
      return (await fetch("/ws")).status === 401;
    } catch {
      return false;
    }
  }

  hear(buffer) {
    const [header, payload] = unpack(buffer);
    if (header.kind === "answer" && this.asked.has(header.ask)) {
      this.asked.get(header.ask)(header);
      this.asked.delete(header.ask);
    } else this.onMessage(header, payload);
  }

  say(order) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(order));
  }

  ask(order) {
    return new Promise((give) => {
      if (this.socket?.readyState !== WebSocket.OPEN) return give({ ok: false, error: "Not connected", hint: "" });
      this.asked.set(++this.asks, give);
      this.say({ ...order, ask: this.asks });
    });
  }

  look(streams, rate) {
    this.wanted = streams;
    this.rate = rate;
    this.say({ op: "look", streams, rate_hz: rate });
  }

  drawn(count) {
    if (count > 0) this.say({ op: "drawn", count });
  }
}
