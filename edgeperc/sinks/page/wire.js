// What comes over the socket: header length, header as JSON, payload. The inverse of web_wire.py.

export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return [header, new Uint8Array(buffer, 4 + length)];
}

// Run lengths of a label map, (value, 32 bits length) each, as 32-bit colours.
export function paintRuns(code, colours, pixels) {
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength);
  let at = 0;
  for (let i = 0; i + 5 <= code.byteLength; i += 5) {
    const end = at + view.getUint32(i + 1, true);
    pixels.fill(colours[code[i]], at, end);
    at = end;
  }
  return at === pixels.length;
}

// COCO's compressed run lengths: down the columns, off first, five bits a character, from the
// third run on as differences to the one two before.
export function cocoRuns(text) {
  const runs = [];
  for (let i = 0; i < text.length; ) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const group = text.charCodeAt(i++) - 48;
      value += (group & 31) * 2 ** shift;
      shift += 5;
      more = (group & 32) !== 0;
      if (!more && group & 16) value -= 2 ** shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

export function paintMask(text, colour, pixels, width, height) {
  let at = 0, on = false;
  for (const run of cocoRuns(text)) {
    if (on) for (let k = at; k < at + run; k++) pixels[(k % height) * width + Math.floor(k / height)] = colour;
    at += run;
    on = !on;
  }
}

export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// "#rrggbb" as the 32 bits of a pixel of an ImageData.
export function pixel(colour, alpha = 255) {
  const [r, g, b] = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
  return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
}
