// Short words for kafkajs, shared by its tests.

import { randomUUID } from "node:crypto";
import kafkajs from "kafkajs";
import lz4 from "kafkajs-lz4";
import snappy from "kafkajs-snappy";
import zstd from "zstd-codec";

export const { CompressionTypes, CompressionCodecs, ConfigResourceTypes, Kafka, logLevel } = kafkajs;

CompressionCodecs[CompressionTypes.Snappy] = snappy.default ?? snappy;
CompressionCodecs[CompressionTypes.LZ4] = new (lz4.default ?? lz4)().codec;
const simple = await new Promise((resolve) =>
  zstd.ZstdCodec.run((found) => resolve(new found.Simple())),
);
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(simple.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(simple.decompress(buffer)),
});

export const codecs = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
};

export const kafka = new Kafka({
  clientId: "kafkajs",
  brokers: [process.env.BOOTSTRAP],
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 50, retries: 20, maxRetryTime: 1000 },
});

/** A name that nothing used before. */
export const fresh = (prefix) => `${prefix}-${randomUUID().slice(0, 13)}`;

/** Waits for a condition; `state` says what is missing when it does not come. */
export async function until(condition, state = () => "") {
  const deadline = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`timed out: ${JSON.stringify(state())}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** A client that is connected for the time of a test. */
export async function connected(test, client) {
  await client.connect();
  test.after(() => client.disconnect());
  return client;
}

/** A new topic. */
export async function createTopic(test, numPartitions = 1, config = {}) {
  const admin = await connected(test, kafka.admin());
  const topic = fresh("kafkajs");
  const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }));
  const topics = [{ topic, numPartitions, replicationFactor: 1, configEntries }];
  await admin.createTopics({ topics, waitForLeaders: true });
  return topic;
}

/** A consumer. Its end waits for its last fetch, so that is not a long one. */
export const consumer = (options) => kafka.consumer({ maxWaitTimeInMs: 200, ...options });

/** The first records of a topic, by a group of its own. */
export async function read(test, topic, count, options = {}) {
  const messages = [];
  const client = await connected(test, consumer({ groupId: fresh("group"), ...options }));
  await client.subscribe({ topics: [topic], fromBeginning: true });
  await client.run({
    eachMessage: async ({ partition, message }) => messages.push({ partition, ...message }),
  });
  await until(
    () => messages.length >= count,
    () => `${messages.length} of ${count}`,
  );
  return messages;
}
