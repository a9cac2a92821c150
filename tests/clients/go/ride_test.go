//go:build ride

package clients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestRide rides through changes of leader and coordinator: an idempotent producer and a group,
// while somebody else stops and kills nodes. Not one of the suite: broker/tests/cluster/riders.rs
// runs it, against a cluster, and looks at the log afterwards.
//
// RIDE_TOPIC has three partitions. RIDE_STOP is a file; once it is there, what was begun is
// finished.
func TestRide(t *testing.T) {
	const partitions = 3
	topic, stop := os.Getenv("RIDE_TOPIC"), os.Getenv("RIDE_STOP")
	cl := client(t,
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.ConsumerGroup(topic+"-readers"),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
	var values [partitions][]string
	var committed [partitions]int64
	sent, known, said := 0, 0, time.Now()
	read := func(wait time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		fetches := cl.PollFetches(ctx)
		for _, failed := range fetches.Errors() {
			if failed.Err != context.DeadlineExceeded {
				t.Fatalf("%s-%d: %v", failed.Topic, failed.Partition, failed.Err)
			}
		}
		records := fetches.Records()
		for _, record := range records {
			before := values[record.Partition]
			where := fmt.Sprintf("%d@%d", record.Partition, record.Offset)
			if record.Offset > int64(len(before)) {
				t.Fatalf("%s: skipped from %d", where, len(before))
			}
			if record.Offset < committed[record.Partition] {
				t.Fatalf("%s: went back", where)
			}
			if record.Offset == int64(len(before)) {
				values[record.Partition] = append(before, string(record.Value))
				known++
			}
			same(t, where, values[record.Partition][record.Offset], string(record.Value))
		}
		if len(records) > 0 {
			err := cl.CommitRecords(within(t), records...)
			dial := (*net.OpError)(nil)
			isBroken := errors.As(err, &dial) || kgo.IsRetryableBrokerErr(err)
			if isBroken && time.Since(said) < 2*deadline {
				// It gives up where its order of nodes has it look for the coordinator twice at one
				// that is gone, and where no answer comes in its time, twice: one connection may have
				// taken as long as an answer may. What comes next commits these.
				return
			}
			if err != nil {
				t.Fatalf("commit: %v", err)
			}
			said = time.Now()
			for _, record := range records {
				committed[record.Partition] = max(committed[record.Partition], record.Offset+1)
			}
		}
	}
	var failed atomic.Value
	for {
		if _, err := os.Stat(stop); err == nil {
			break
		}
		for range 3 {
			value := fmt.Sprintf("franz-go %d", sent)
			record := &kgo.Record{Topic: topic, Partition: int32(sent % partitions), Value: []byte(value)}
			cl.Produce(t.Context(), record, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(err.Error())
				}
			})
			sent++
		}
		read(10 * time.Millisecond)
		if err := failed.Load(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := failed.Load(); err != nil {
		t.Fatal(err)
	}
	until(t, "all that was sent is not read", func() bool {
		read(100 * time.Millisecond)
		return known >= sent
	})
	for partition, read := range values {
		for index, value := range read {
			same(t, "value", value, fmt.Sprintf("franz-go %d", partition+index*partitions))
		}
	}
	fmt.Printf("RIDE sent=%d\n", sent)
}
