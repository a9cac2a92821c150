// Groups share partitions, and go on where they were.

import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, consumer, createTopic, fresh, kafka, until } from "./broker.mjs";

/** A member of a group, with what it read and what it owns. */
async function member(test, topic, groupId) {
  const client = await connected(
    test,
    consumer({ groupId, heartbeatInterval: 300, sessionTimeout: 30_000 }),
  );
  const self = { client, owned: [], values: [] };
  client.on(client.events.GROUP_JOIN, ({ payload }) => {
    self.owned = payload.memberAssignment[topic] ?? [];
  });
  client.on(client.events.REBALANCING, () => (self.owned = []));
  await client.subscribe({ topics: [topic], fromBeginning: true });
  await client.run({
    eachMessage: async ({ message }) => self.values.push(Number(message.value)),
  });
  return self;
}

test("three members share and take over", async (t) => {
  const topic = await createTopic(t, 6);
  const group = fresh("group");
  const producer = await connected(t, kafka.producer());
  const fill = (begin, end) =>
    producer.send({
      topic,
      messages: Array.from({ length: end - begin }, (_, i) => ({
        partition: (begin + i) % 6,
        value: `${begin + i}`,
      })),
    });
  const members = await Promise.all([1, 2, 3].map(() => member(t, topic, group)));
  const shared = (all) => {
    const owned = all.flatMap((m) => m.owned).sort();
    const sizes = all.map((m) => m.owned.length);
    return owned.join() === "0,1,2,3,4,5" && Math.max(...sizes) - Math.min(...sizes) <= 1;
  };
  const state = () => members.map((m) => m.owned);
  const seen = () => members.flatMap((m) => m.values).sort((a, b) => a - b);
  await until(() => shared(members), state);
  await fill(0, 120);
  await until(() => seen().length >= 120);
  await members[2].client.disconnect();
  members[2].owned = [];
  await until(() => shared(members.slice(0, 2)), state);
  await fill(120, 240);
  await until(() => seen().length >= 240);
  assert.deepEqual(
    seen(),
    Array.from({ length: 240 }, (_, i) => i),
  );
});

test("a group goes on where it was", async (t) => {
  const topic = await createTopic(t);
  const group = fresh("group");
  const producer = await connected(t, kafka.producer());
  await producer.send({ topic, messages: [0, 1, 2].map((i) => ({ value: `${i}` })) });
  const first = await member(t, topic, group);
  await until(() => first.values.length === 3);
  await first.client.stop();
  await first.client.disconnect();
  await producer.send({ topic, messages: [3, 4, 5].map((i) => ({ value: `${i}` })) });
  const second = await member(t, topic, group);
  await until(() => second.values.length === 3);
  assert.deepEqual(second.values, [3, 4, 5]);
});
