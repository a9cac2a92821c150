// Package clients runs franz-go against a broker; see run.
package clients

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const deadline = 60 * time.Second

// fresh is a name that nothing used before.
func fresh(prefix string) string {
	return prefix + "-" + rand.Text()[:12]
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	seeds := strings.Split(os.Getenv("BOOTSTRAP"), ",")
	options = append([]kgo.Opt{kgo.SeedBrokers(seeds...)}, options...)
	cl, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.CloseAllowingRebalance)
	return cl
}

func admin(t *testing.T) *kadm.Client {
	return kadm.NewClient(client(t))
}

// createTopic makes a new topic; settings are name, value, name, value.
func createTopic(t *testing.T, partitions int32, settings ...string) string {
	t.Helper()
	configs := make(map[string]*string)
	for i := 0; i < len(settings); i += 2 {
		configs[settings[i]] = &settings[i+1]
	}
	name := fresh("franz-go")
	if _, err := admin(t).CreateTopic(within(t), partitions, 1, configs, name); err != nil {
		t.Fatal(err)
	}
	return name
}

// poll returns records until there are so many.
func poll(t *testing.T, cl *kgo.Client, count int) []*kgo.Record {
	t.Helper()
	ctx := within(t)
	var records []*kgo.Record
	for len(records) < count {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d records: %v", len(records), count, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

// read returns the first records of a partition.
func read(t *testing.T, topic string, partition int32, count int, options ...kgo.Opt) []*kgo.Record {
	t.Helper()
	from := map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}
	return poll(t, client(t, append(options, kgo.ConsumePartitions(from))...), count)
}

// until waits for what another thread of the broker may still be about to do.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx := within(t)
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("timed out: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func same[T comparable](t *testing.T, what string, found, expected T) {
	t.Helper()
	if found != expected {
		t.Fatalf("%s: %v, expected %v", what, found, expected)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func number(i int) []byte { return fmt.Appendf(nil, "%d", i) }
