// The admin client makes, changes, describes and removes what it should.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigResourceTypes, connected, consumer, createTopic, fresh, kafka, until } from "./broker.mjs";

test("topics come and go", async (t) => {
  const admin = await connected(t, kafka.admin());
  const topic = await createTopic(t, 2);
  assert.ok((await admin.listTopics()).includes(topic));
  await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] });
  const partitions = async () =>
    (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length;
  await until(async () => (await partitions()) === 4);
  assert.equal(await admin.createTopics({ topics: [{ topic }] }), false);
  await admin.deleteTopics({ topics: [topic] });
  await until(async () => !(await admin.listTopics()).includes(topic));
});

test("settings change", async (t) => {
  const admin = await connected(t, kafka.admin());
  const topic = await createTopic(t, 1, { "retention.ms": "1234" });
  const setting = async () => {
    const resources = [
      { type: ConfigResourceTypes.TOPIC, name: topic, configNames: ["retention.ms"] },
    ];
    const described = await admin.describeConfigs({ resources });
    return described.resources[0].configEntries[0].configValue;
  };
  assert.equal(await setting(), "1234");
  const configEntries = [{ name: "retention.ms", value: "5678" }];
  const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries }];
  await admin.alterConfigs({ resources });
  await until(async () => (await setting()) === "5678");
});

test("offsets are listed, records deleted", async (t) => {
  const admin = await connected(t, kafka.admin());
  const topic = await createTopic(t);
  const producer = await connected(t, kafka.producer());
  const messages = Array.from({ length: 30 }, (_, i) => ({ value: "x", timestamp: `${1000 + i}` }));
  await producer.send({ topic, messages });
  const [offsets] = await admin.fetchTopicOffsets(topic);
  assert.deepEqual([offsets.low, offsets.high], ["0", "30"]);
  const [byTime] = await admin.fetchTopicOffsetsByTimestamp(topic, 1010);
  assert.equal(byTime.offset, "10");
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: "20" }] });
  const [after] = await admin.fetchTopicOffsets(topic);
  assert.deepEqual([after.low, after.high], ["20", "30"]);
});

test("groups are listed, described, reset and deleted", async (t) => {
  const admin = await connected(t, kafka.admin());
  const topic = await createTopic(t);
  const groupId = fresh("group");
  const member = await connected(t, consumer({ groupId }));
  await member.subscribe({ topics: [topic] });
  await member.run({ eachMessage: async () => {} });
  await until(async () => (await admin.describeGroups([groupId])).groups[0].state === "Stable");
  const [group] = (await admin.describeGroups([groupId])).groups;
  assert.equal(group.members.length, 1);
  assert.equal(group.protocol, "RoundRobinAssigner");
  assert.ok((await admin.listGroups()).groups.some((found) => found.groupId === groupId));
  await member.disconnect();
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: "5" }] });
  const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] });
  assert.equal(committed.partitions[0].offset, "5");
  await admin.deleteGroups([groupId]);
  assert.ok(!(await admin.listGroups()).groups.some((found) => found.groupId === groupId));
});

test("the cluster is described", async (t) => {
  const admin = await connected(t, kafka.admin());
  const cluster = await admin.describeCluster();
  assert.equal(cluster.brokers.length, 1);
  assert.equal(cluster.controller, cluster.brokers[0].nodeId);
});
