/* How long librdkafka's records take to be acknowledged, in an open loop: a record each 1/RATE seconds,
 * timed from the moment at which it was to be sent. Prints p50, p99, p99.9 and the longest, in us.
 *
 *   acknowledge HOST:PORT TOPIC BYTES RATE SECONDS ACKS LINGER_MS PARTITIONS
 *
 * Ends with 1 where a record was refused, or not answered within a minute. */
#include <librdkafka/rdkafka.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint32_t *taken_us;
static long acknowledged, refused;
static int is_measured;

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void on_answer(rd_kafka_t *client, const rd_kafka_message_t *record, void *opaque) {
  (void)client, (void)opaque;
  if (record->err)
    refused++;
  else if (is_measured)
    taken_us[acknowledged++] = (uint32_t)((now_ns() - (intptr_t)record->_private) / 1000);
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static uint32_t percentile(double share) {
  long at = (long)(acknowledged * share);
  return taken_us[at < acknowledged ? at : acknowledged - 1];
}

static void set(rd_kafka_conf_t *settings, const char *name, const char *value) {
  char why[512];
  if (rd_kafka_conf_set(settings, name, value, why, sizeof why) != RD_KAFKA_CONF_OK) {
    fprintf(stderr, "%s\n", why);
    exit(2);
  }
}

/* Where librdkafka has no room, it is asked again: the record is the later for it. */
static void produce(rd_kafka_t *client, rd_kafka_topic_t *topic, int partition, char *value,
                    size_t bytes, int64_t due_ns) {
  while (rd_kafka_produce(topic, partition, RD_KAFKA_MSG_F_COPY, value, bytes, NULL, 0,
                          (void *)(intptr_t)due_ns))
    rd_kafka_poll(client, 1);
}

int main(int count, char **words) {
  if (count != 9) {
    fprintf(stderr, "acknowledge HOST:PORT TOPIC BYTES RATE SECONDS ACKS LINGER_MS PARTITIONS\n");
    return 2;
  }
  size_t bytes = strtoul(words[3], NULL, 10);
  long rate = atol(words[4]), total = rate * atol(words[5]);
  int partitions = atoi(words[8]);
  rd_kafka_conf_t *settings = rd_kafka_conf_new();
  set(settings, "bootstrap.servers", words[1]);
  set(settings, "acks", words[6]);
  set(settings, "linger.ms", words[7]);
  set(settings, "queue.buffering.max.messages", "2000000");
  rd_kafka_conf_set_dr_msg_cb(settings, on_answer);
  char why[512];
  rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, settings, why, sizeof why);
  char *value = malloc(bytes ? bytes : 1);
  taken_us = malloc(sizeof *taken_us * (total + 1));
  FILE *random = fopen("/dev/urandom", "r");
  if (!client || !value || !taken_us || !random || fread(value, 1, bytes, random) != bytes) return 2;
  rd_kafka_topic_t *topic = rd_kafka_topic_new(client, words[2], NULL);

  for (int at = 0; at < partitions; at++) produce(client, topic, at, value, bytes, now_ns());
  /* What is answered later would count as measured. */
  if (rd_kafka_flush(client, 60000) != RD_KAFKA_RESP_ERR_NO_ERROR || refused > 0) {
    fprintf(stderr, "the first records were not acknowledged, %ld refused\n", refused);
    return 1;
  }
  is_measured = 1;
  int64_t start_ns = now_ns();
  for (long at = 0; at < total; at++) {
    int64_t due_ns = start_ns + (int64_t)(at * (1e9 / rate));
    for (int64_t left_ns; (left_ns = due_ns - now_ns()) > 0;) {
      rd_kafka_poll(client, 0);
      if (left_ns > 200000) nanosleep(&(struct timespec){0, 50000}, NULL);
    }
    produce(client, topic, at % partitions, value, bytes, due_ns);
    rd_kafka_poll(client, 0);
  }
  rd_kafka_flush(client, 60000);
  if (acknowledged == 0 || refused > 0 || acknowledged < total) {
    fprintf(stderr, "%ld of %ld acknowledged, %ld refused\n", acknowledged, total, refused);
    return 1;
  }
  qsort(taken_us, acknowledged, sizeof *taken_us, by_size);
  printf("%u %u %u %u\n", percentile(0.5), percentile(0.99), percentile(0.999), percentile(1));
  return 0;
}
