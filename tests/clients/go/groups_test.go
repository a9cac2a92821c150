package clients

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// member is a consumer of a group in a goroutine of its own; it commits what it has read.
type member struct {
	client *kgo.Client
	stop   context.CancelFunc
	done   chan struct{}

	mutex  sync.Mutex
	owned  []int32
	values []int
}

func join(t *testing.T, topic, group string, options ...kgo.Opt) *member {
	m := &member{done: make(chan struct{})}
	changed := func(change func(int32)) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			m.mutex.Lock()
			defer m.mutex.Unlock()
			for _, partition := range partitions[topic] {
				change(partition)
			}
		}
	}
	add := changed(func(p int32) { m.owned = append(m.owned, p) })
	remove := changed(func(p int32) {
		m.owned = slices.DeleteFunc(m.owned, func(q int32) bool { return p == q })
	})
	options = append([]kgo.Opt{
		kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(20 * time.Second), kgo.HeartbeatInterval(300 * time.Millisecond),
		kgo.OnPartitionsAssigned(add), kgo.OnPartitionsRevoked(remove), kgo.OnPartitionsLost(remove),
	}, options...)
	m.client = client(t, options...)
	ctx, stop := context.WithCancel(t.Context())
	m.stop = stop
	go m.run(ctx, t)
	t.Cleanup(m.leave)
	return m
}

func (m *member) run(ctx context.Context, t *testing.T) {
	defer close(m.done)
	for ctx.Err() == nil {
		fetches := m.client.PollFetches(ctx)
		if err := fetches.Err(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
			return
		}
		records := fetches.Records()
		m.mutex.Lock()
		for _, record := range records {
			value, _ := strconv.Atoi(string(record.Value))
			m.values = append(m.values, value)
		}
		m.mutex.Unlock()
		if len(records) > 0 {
			err := m.client.CommitRecords(t.Context(), records...)
			// At the end of a test its context goes before its members do.
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		m.client.AllowRebalance()
	}
}

// leave ends the member in an orderly way. A second time it does nothing.
func (m *member) leave() {
	m.stop()
	<-m.done
	m.client.CloseAllowingRebalance()
}

func (m *member) state() ([]int32, []int) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	owned := slices.Clone(m.owned)
	slices.Sort(owned)
	return owned, slices.Clone(m.values)
}

// shared tells whether each partition has one owner, and each member a fair share.
func shared(members []*member, partitions int) bool {
	var all []int32
	most, least := 0, partitions
	for _, m := range members {
		owned, _ := m.state()
		most, least = max(most, len(owned)), min(least, len(owned))
		all = append(all, owned...)
	}
	slices.Sort(all)
	return len(all) == partitions && len(slices.Compact(all)) == partitions && most-least <= 1
}

func seen(members []*member) []int {
	var all []int
	for _, m := range members {
		_, values := m.state()
		all = append(all, values...)
	}
	slices.Sort(all)
	return all
}

func fill(t *testing.T, topic string, partitions, begin, end int) {
	t.Helper()
	cl := client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := begin; i < end; i++ {
		cl.Produce(within(t), &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: number(i)}, nil)
	}
	if err := cl.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestThreeMembersShareAndTakeOver(t *testing.T) {
	balancers := map[string]kgo.GroupBalancer{
		"range":              kgo.RangeBalancer(),
		"roundrobin":         kgo.RoundRobinBalancer(),
		"sticky":             kgo.StickyBalancer(),
		"cooperative-sticky": kgo.CooperativeStickyBalancer(),
	}
	for name, balancer := range balancers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic, group := createTopic(t, 6), fresh("group")
			var members []*member
			for range 3 {
				members = append(members, join(t, topic, group, kgo.Balancers(balancer)))
			}
			until(t, "three shares", func() bool { return shared(members, 6) })
			fill(t, topic, 6, 0, 300)
			until(t, "300 values", func() bool { return len(seen(members)) >= 300 })
			members[2].leave()
			until(t, "two shares", func() bool { return shared(members[:2], 6) })
			fill(t, topic, 6, 300, 600)
			until(t, "600 values", func() bool { return len(seen(members)) >= 600 })
			for i, value := range seen(members) {
				same(t, "value", value, i)
			}
		})
	}
}

func TestAGroupGoesOnWhereItWas(t *testing.T) {
	topic, group := createTopic(t, 1), fresh("group")
	fill(t, topic, 1, 0, 50)
	first := join(t, topic, group)
	until(t, "50 values", func() bool { return len(seen([]*member{first})) == 50 })
	first.leave()
	fill(t, topic, 1, 50, 100)
	second := join(t, topic, group)
	until(t, "50 more", func() bool { return len(seen([]*member{second})) == 50 })
	same(t, "first", seen([]*member{second})[0], 50)
}

func TestAStaticMemberReturns(t *testing.T) {
	topic, group := createTopic(t, 2), fresh("group")
	stays := join(t, topic, group, kgo.InstanceID("stays"))
	leaves := join(t, topic, group, kgo.InstanceID("returns"))
	until(t, "two shares", func() bool { return shared([]*member{stays, leaves}, 2) })
	owned, _ := leaves.state()
	_, generation := stays.client.GroupMetadata()
	leaves.leave()
	returns := join(t, topic, group, kgo.InstanceID("returns"))
	until(t, "two shares", func() bool { return shared([]*member{stays, returns}, 2) })
	again, _ := returns.state()
	same(t, "partition", again[0], owned[0])
	_, after := stays.client.GroupMetadata()
	same(t, "generation", after, generation)
}
