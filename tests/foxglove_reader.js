// A recording as Foxglove reads it: its own libraries open the file and decode every message.
//
// NODE_PATH=.venv-foxglove/node_modules node tests/foxglove_reader.js FILE: JSON in one line.

const { open } = require("fs/promises");
const { McapIndexedReader, McapStreamReader } = require("@mcap/core");
const { loadDecompressHandlers } = require("@mcap/support");
const { parse } = require("@foxglove/rosmsg");
const { MessageReader } = require("@foxglove/rosmsg2-serialization");

class File {
  constructor(handle) {
    this.handle = handle;
  }
  async size() {
    return BigInt((await this.handle.stat()).size);
  }
  async read(offset, size) {
    const data = new Uint8Array(Number(size));
    await this.handle.read(data, 0, data.length, Number(offset));
    return data;
  }
}

// A hash of what was decoded, which another decoder can make, too: FNV-1a of some numbers.
function digest(hash, bytes) {
  for (const byte of bytes) {
    hash = Math.imul(hash ^ byte, 16777619) >>> 0;
  }
  return hash;
}

async function main() {
  const handle = await open(process.argv[2]);
  const decompressHandlers = await loadDecompressHandlers();
  const reader = await McapIndexedReader.Initialize({
    readable: new File(handle),
    decompressHandlers,
  });
  const readers = new Map();
  for (const schema of reader.schemasById.values()) {
    const text = new TextDecoder().decode(schema.data);
    readers.set(schema.id, new MessageReader(parse(text, { ros2: true }), { timeType: "sec,nanosec" }));
  }
  const topics = {};
  for await (const { channelId, data, logTime } of reader.readMessages({ validateCrcs: true })) {
    const channel = reader.channelsById.get(channelId);
    const schema = reader.schemasById.get(channel.schemaId);
    const message = readers.get(schema.id).readMessage(data);
    const topic = (topics[channel.topic] ??= { type: schema.name, count: 0, hash: 2166136261 });
    topic.count += 1;
    topic.logged = String(logTime);
    if (message.header) {
      topic.stamp = [message.header.stamp.sec, message.header.stamp.nanosec];
      topic.frame_id = message.header.frame_id;
    }
    const large = message.data ?? message.events;
    if (large instanceof Uint8Array) {
      topic.hash = digest(topic.hash, large);
      topic.size = [message.width, message.height];
    } else if (typeof message.data === "string") {
      topic.text = message.data;
    } else if (message.detections) {
      topic.boxes = message.detections.map((each) => each.bbox.size_x);
    } else if (message.k) {
      topic.k = Array.from(message.k);
    } else if (message.class_map) {
      topic.classes = message.class_map.map((each) => each.class_name);
    }
  }
  const attachments = [];
  for await (const each of reader.readAttachments({ validateCrcs: true })) {
    attachments.push(each.name);
  }
  const metadata = [];
  for await (const each of reader.readMetadata()) {
    metadata.push([each.name, Object.fromEntries(each.metadata)]);
  }

  // The same from its start, without the index, every checksum held against what it is of.
  const stream = new McapStreamReader({ decompressHandlers, validateCrcs: true });
  const readable = new File(handle);
  stream.append(await readable.read(0n, await readable.size()));
  let streamed = 0;
  for (let record; (record = stream.nextRecord()); ) {
    streamed += record.type === "Message";
  }
  const { statistics, header } = reader;
  console.log(
    JSON.stringify({
      profile: header.profile,
      library: header.library,
      messages: Number(statistics.messageCount),
      streamed,
      complete: stream.done(),
      topics,
      attachments,
      metadata,
    }),
  );
  await handle.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
