package clients

import (
	"bytes"
	"errors"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestRecordsComeBack(t *testing.T) {
	codecs := map[string]kgo.CompressionCodec{
		"none":   kgo.NoCompression(),
		"gzip":   kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(),
		"lz4":    kgo.Lz4Compression(),
		"zstd":   kgo.ZstdCompression(),
	}
	acks := map[string]kgo.Acks{
		"0":   kgo.NoAck(),
		"1":   kgo.LeaderAck(),
		"all": kgo.AllISRAcks(),
	}
	for codec, compression := range codecs {
		for name, ack := range acks {
			t.Run(codec+", acks="+name, func(t *testing.T) {
				t.Parallel()
				recordsComeBack(t, kgo.ProducerBatchCompression(compression), kgo.RequiredAcks(ack))
			})
		}
	}
}

func recordsComeBack(t *testing.T, options ...kgo.Opt) {
	topic := createTopic(t, 1)
	options = append(options, kgo.DisableIdempotentWrite(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	cl := client(t, options...)
	sent := []*kgo.Record{
		{
			Key: []byte("key"), Value: []byte("value"),
			Headers: []kgo.RecordHeader{
				{Key: "h", Value: []byte("1")}, {Key: "h", Value: []byte("2")},
				{Key: "empty", Value: []byte{}}, {Key: "null"},
			},
		},
		{Value: []byte("no key")},
		{Key: []byte("tombstone")},
		{Key: []byte{}, Value: []byte{}},
	}
	for i := range 300 {
		sent = append(sent, &kgo.Record{Key: number(i), Value: bytes.Repeat(number(i), 30)})
	}
	for i, record := range sent {
		record.Topic = topic
		record.Timestamp = time.UnixMilli(1_600_000_000_000 + int64(i))
	}
	if err := cl.ProduceSync(within(t), sent...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for i, found := range read(t, topic, 0, len(sent)) {
		expected := sent[i]
		same(t, "offset", found.Offset, int64(i))
		if !bytes.Equal(found.Key, expected.Key) || !bytes.Equal(found.Value, expected.Value) {
			t.Fatalf("record %d differs", i)
		}
		same(t, "null key", found.Key == nil, expected.Key == nil)
		same(t, "null value", found.Value == nil, expected.Value == nil)
		same(t, "headers", len(found.Headers), len(expected.Headers))
		for j, header := range found.Headers {
			same(t, "header", header.Key, expected.Headers[j].Key)
			same(t, "header", string(header.Value), string(expected.Headers[j].Value))
		}
		same(t, "timestamp", found.Timestamp.UnixMilli(), expected.Timestamp.UnixMilli())
	}
}

func TestAnIdempotentProducerKeepsOrder(t *testing.T) {
	topic := createTopic(t, 3)
	cl := client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(512),
		kgo.ProducerLinger(0))
	for i := range 3000 {
		record := &kgo.Record{Topic: topic, Partition: int32(i % 3), Value: number(i)}
		cl.Produce(within(t), record, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	for partition := range 3 {
		for i, record := range read(t, topic, int32(partition), 1000) {
			same(t, "value", string(record.Value), string(number(i*3+partition)))
		}
	}
}

func TestLargeRecords(t *testing.T) {
	topic := createTopic(t, 1, "max.message.bytes", "6000000")
	large := make([]byte, 5_000_000)
	rand.New(rand.NewSource(1)).Read(large)
	cl := client(t, kgo.ProducerBatchMaxBytes(9_000_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err := cl.ProduceSync(within(t), &kgo.Record{Topic: topic, Value: large}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	larger := &kgo.Record{Topic: topic, Value: make([]byte, 7_000_000)}
	err := cl.ProduceSync(within(t), larger).FirstErr()
	same(t, "too large", errors.Is(err, kerr.MessageTooLarge), true)
	if !bytes.Equal(read(t, topic, 0, 1)[0].Value, large) {
		t.Fatal("a large record differs")
	}
}

func TestAReadCrossesSegments(t *testing.T) {
	topic := createTopic(t, 1, "segment.bytes", "1048576")
	cl := client(t, kgo.ProducerBatchCompression(kgo.NoCompression()))
	random := rand.New(rand.NewSource(2))
	var sent []*kgo.Record
	for range 150 {
		value := make([]byte, 50_000)
		random.Read(value)
		sent = append(sent, &kgo.Record{Topic: topic, Value: value})
	}
	if err := cl.ProduceSync(within(t), sent...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for i, record := range read(t, topic, 0, 150, kgo.FetchMaxPartitionBytes(200_000)) {
		if !bytes.Equal(record.Value, sent[i].Value) {
			t.Fatalf("record %d differs", i)
		}
	}
}

func TestAWaitingFetchIsAnsweredAtOnce(t *testing.T) {
	topic := createTopic(t, 1)
	from := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}
	reader := client(t, kgo.ConsumePartitions(from), kgo.FetchMaxWait(5*time.Second))
	writer := client(t, kgo.ProducerLinger(0))
	fastest := time.Hour
	for i := range 5 {
		time.Sleep(100 * time.Millisecond)
		begin := time.Now()
		writer.Produce(within(t), &kgo.Record{Topic: topic, Value: number(i)}, nil)
		same(t, "value", string(poll(t, reader, 1)[0].Value), string(number(i)))
		fastest = min(fastest, time.Since(begin))
	}
	if fastest > 500*time.Millisecond {
		t.Fatalf("the fastest took %v", fastest)
	}
}

func TestSeekAndPause(t *testing.T) {
	topic := createTopic(t, 2)
	cl := client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 200 {
		record := &kgo.Record{
			Topic: topic, Partition: int32(i % 2), Value: number(i / 2),
			Timestamp: time.UnixMilli(1_600_000_000_000 + int64(i/2)*1000),
		}
		cl.Produce(within(t), record, nil)
	}
	if err := cl.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	at := kgo.NewOffset().AfterMilli(1_600_000_050_500)
	from := map[string]map[int32]kgo.Offset{topic: {0: at}}
	same(t, "by time", poll(t, client(t, kgo.ConsumePartitions(from)), 49)[0].Offset, 51)
	from = map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(90), 1: kgo.NewOffset().At(95)}}
	reader := client(t, kgo.ConsumePartitions(from))
	reader.PauseFetchPartitions(map[string][]int32{topic: {1}})
	for _, record := range poll(t, reader, 10) {
		same(t, "partition", record.Partition, 0)
	}
	reader.ResumeFetchPartitions(map[string][]int32{topic: {1}})
	same(t, "offset", poll(t, reader, 5)[0].Offset, 95)
}

func TestATopicIsMadeByItsFirstUse(t *testing.T) {
	topic := fresh("auto")
	cl := client(t, kgo.AllowAutoTopicCreation())
	if err := cl.ProduceSync(within(t), &kgo.Record{Topic: topic, Value: []byte("first")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	same(t, "value", string(read(t, topic, 0, 1)[0].Value), "first")
}

func TestWritingGoesOnOverARestart(t *testing.T) {
	restart := os.Getenv("RESTART_CMD")
	if restart == "" {
		t.Skip("no RESTART_CMD")
	}
	topic := createTopic(t, 1)
	cl := client(t, kgo.ProducerLinger(0))
	for i := range 400 {
		cl.Produce(within(t), &kgo.Record{Topic: topic, Value: number(i)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
		if i == 200 {
			if err := exec.Command("sh", "-c", restart).Run(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cl.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	for i, record := range read(t, topic, 0, 400) {
		same(t, "value", string(record.Value), string(number(i)))
	}
}

// There are none yet: the client must not try for ever.
func TestTransactionsAreRefusedForGood(t *testing.T) {
	if os.Getenv("BROKER") != "vltava" {
		t.Skip("another broker")
	}
	topic := createTopic(t, 1)
	cl := client(t, kgo.TransactionalID(topic))
	err := cl.BeginTransaction()
	if err == nil || !strings.Contains(err.Error(), "TRANSACTIONAL_ID_AUTHORIZATION_FAILED") {
		t.Fatalf("%v", err)
	}
}
