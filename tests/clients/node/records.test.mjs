// Records go in and come out as they were, with every codec and acks.

import assert from "node:assert/strict";
import { execSync } from "node:child_process";
import { test } from "node:test";
import { codecs, connected, createTopic, fresh, kafka, read } from "./broker.mjs";

for (const [name, compression] of Object.entries(codecs)) {
  for (const acks of [0, 1, -1]) {
    test(`records come back, ${name}, acks=${acks}`, async (t) => {
      const topic = await createTopic(t);
      const messages = [
        { key: "key", value: "value", headers: { h: ["1", "2"], empty: "" } },
        { key: null, value: "no key" },
        { key: "tombstone", value: null },
        { key: "", value: "" },
      ];
      for (let i = 0; i < 200; i++) messages.push({ key: `${i}`, value: `${i}`.repeat(30) });
      messages.forEach((message, index) => (message.timestamp = `${1_600_000_000_000 + index}`));
      const producer = await connected(t, kafka.producer());
      await producer.send({ topic, messages, compression, acks });
      const found = await read(t, topic, messages.length);
      messages.forEach((message, index) => {
        assert.equal(found[index].offset, `${index}`);
        assert.equal(found[index].key?.toString() ?? null, message.key);
        assert.equal(found[index].value?.toString() ?? null, message.value);
        assert.equal(found[index].timestamp, message.timestamp);
      });
      assert.deepEqual(found[0].headers.h.map(String), ["1", "2"]);
      assert.equal(found[0].headers.empty.toString(), "");
    });
  }
}

test("an idempotent producer keeps order", async (t) => {
  const topic = await createTopic(t, 2);
  const producer = await connected(t, kafka.producer({ idempotent: true, maxInFlightRequests: 1 }));
  for (let i = 0; i < 200; i += 2) {
    const messages = [
      { partition: 0, value: `${i}` },
      { partition: 1, value: `${i + 1}` },
    ];
    await producer.send({ topic, messages, acks: -1 });
  }
  const found = await read(t, topic, 200);
  for (const partition of [0, 1]) {
    const values = found.filter((m) => m.partition === partition).map((m) => Number(m.value));
    assert.deepEqual(
      values,
      Array.from({ length: 100 }, (_, i) => 2 * i + partition),
    );
  }
});

test("large records, and a read over several segments", async (t) => {
  const topic = await createTopic(t, 1, { "segment.bytes": "1048576" });
  const producer = await connected(t, kafka.producer());
  for (let i = 0; i < 40; i++) {
    await producer.send({ topic, messages: [{ value: Buffer.alloc(200_000, i) }] });
  }
  const found = await read(t, topic, 40, { maxBytesPerPartition: 300_000 });
  found.forEach((message, i) => {
    assert.equal(message.value.length, 200_000);
    assert.equal(message.value[199_999], i);
  });
});

test("a topic is made by its first use", async (t) => {
  const topic = fresh("auto");
  const producer = await connected(t, kafka.producer({ allowAutoTopicCreation: true }));
  await producer.send({ topic, messages: [{ value: "first" }] });
  const [message] = await read(t, topic, 1);
  assert.equal(message.value.toString(), "first");
});

const restart = process.env.RESTART_CMD;
test("writing goes on over a restart", { skip: !restart && "no RESTART_CMD" }, async (t) => {
  const topic = await createTopic(t);
  const producer = await connected(t, kafka.producer({ idempotent: true }));
  for (let i = 0; i < 40; i++) {
    if (i === 20) execSync(restart);
    await producer.send({ topic, messages: [{ value: `${i}` }], acks: -1 });
  }
  const found = await read(t, topic, 40);
  assert.deepEqual(
    found.map((message) => Number(message.value)),
    Array.from({ length: 40 }, (_, i) => i),
  );
});
