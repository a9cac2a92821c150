package clients

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestTopicsComeAndGo(t *testing.T) {
	adm, topic := admin(t), createTopic(t, 3)
	partitions := func() int {
		return len(must[kadm.TopicDetails](t)(adm.ListTopics(within(t), topic))[topic].Partitions)
	}
	same(t, "partitions", partitions(), 3)
	must[kadm.CreatePartitionsResponses](t)(adm.UpdatePartitions(within(t), 5, topic))
	until(t, "5 partitions", func() bool { return partitions() == 5 })
	_, err := adm.CreateTopic(within(t), 1, 1, nil, topic)
	same(t, "error", errors.Is(err, kerr.TopicAlreadyExists), true)
	_, err = adm.CreateTopic(within(t), 1, 1, nil, "a/b")
	same(t, "error", errors.Is(err, kerr.InvalidTopicException), true)
	must[kadm.DeleteTopicResponse](t)(adm.DeleteTopic(within(t), topic))
	until(t, "no topic", func() bool {
		return !must[kadm.TopicDetails](t)(adm.ListTopics(within(t))).Has(topic)
	})
}

func TestSettingsChange(t *testing.T) {
	adm, topic := admin(t), createTopic(t, 1, "retention.ms", "1234")
	setting := func() string {
		configs := must[kadm.ResourceConfigs](t)(adm.DescribeTopicConfigs(within(t), topic))
		for _, config := range configs[0].Configs {
			if config.Key == "retention.ms" {
				return config.MaybeValue()
			}
		}
		return ""
	}
	same(t, "setting", setting(), "1234")
	value := "5678"
	change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}
	must[kadm.AlterConfigsResponses](t)(adm.AlterTopicConfigs(within(t), change, topic))
	until(t, "5678", func() bool { return setting() == "5678" })
	change = []kadm.AlterConfig{{Op: kadm.DeleteConfig, Name: "retention.ms"}}
	must[kadm.AlterConfigsResponses](t)(adm.AlterTopicConfigs(within(t), change, topic))
	until(t, "the default", func() bool { return setting() == "604800000" })
	// AlterConfigs, which replaces all settings at once.
	change = []kadm.AlterConfig{{Name: "retention.ms", Value: &value}}
	must[kadm.AlterConfigsResponses](t)(adm.AlterTopicConfigsState(within(t), change, topic))
	until(t, "5678 again", func() bool { return setting() == "5678" })
}

func TestOffsetsAndDeletedRecords(t *testing.T) {
	adm, topic := admin(t), createTopic(t, 1)
	cl := client(t)
	for i := range 50 {
		record := &kgo.Record{Topic: topic, Value: number(i), Timestamp: time.UnixMilli(1000 + int64(i))}
		if err := cl.ProduceSync(within(t), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	offset := func(list kadm.ListedOffsets, err error) int64 {
		found, ok := must[kadm.ListedOffsets](t)(list, err).Lookup(topic, 0)
		same(t, "listed", ok, true)
		return found.Offset
	}
	same(t, "end", offset(adm.ListEndOffsets(within(t), topic)), 50)
	same(t, "start", offset(adm.ListStartOffsets(within(t), topic)), 0)
	same(t, "committed", offset(adm.ListCommittedOffsets(within(t), topic)), 50)
	same(t, "by time", offset(adm.ListOffsetsAfterMilli(within(t), 1030, topic)), 30)
	same(t, "max", offset(adm.ListMaxTimestampOffsets(within(t), topic)), 49)
	offsets := make(kadm.Offsets)
	offsets.AddOffset(topic, 0, 20, -1)
	must[kadm.DeleteRecordsResponses](t)(adm.DeleteRecords(within(t), offsets))
	same(t, "start", offset(adm.ListStartOffsets(within(t), topic)), 20)
}

func TestGroups(t *testing.T) {
	adm, topic, group := admin(t), createTopic(t, 2), fresh("group")
	m := join(t, topic, group)
	until(t, "both partitions", func() bool { return shared([]*member{m}, 2) })
	described := must[kadm.DescribedGroups](t)(adm.DescribeGroups(within(t), group))[group]
	same(t, "state", described.State, "Stable")
	same(t, "members", len(described.Members), 1)
	m.leave()
	offsets := make(kadm.Offsets)
	offsets.AddOffset(topic, 0, 5, -1)
	must[kadm.OffsetResponses](t)(adm.CommitOffsets(within(t), group, offsets))
	fetched := must[kadm.OffsetResponses](t)(adm.FetchOffsets(within(t), group))
	found, _ := fetched.Lookup(topic, 0)
	same(t, "offset", found.At, 5)
	lag := must[kadm.DescribedGroupLags](t)(adm.Lag(within(t), group))[group]
	same(t, "state", lag.State, "Empty")
	must[kadm.DeleteOffsetsResponses](t)(adm.DeleteOffsets(within(t), group, offsets.TopicsSet()))
	listed := must[kadm.ListedGroups](t)(adm.ListGroups(within(t)))
	if _, ok := listed[group]; ok {
		must[kadm.DeleteGroupResponses](t)(adm.DeleteGroups(within(t), group))
	}
	_, ok := must[kadm.ListedGroups](t)(adm.ListGroups(within(t)))[group]
	same(t, "listed", ok, false)
}

func TestTheNodeDescribesItself(t *testing.T) {
	adm, topic := admin(t), createTopic(t, 1)
	cl := client(t)
	record := &kgo.Record{Topic: topic, Value: make([]byte, 1000)}
	if err := cl.ProduceSync(within(t), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	metadata := must[kadm.Metadata](t)(adm.BrokerMetadata(within(t)))
	same(t, "brokers", len(metadata.Brokers), 1)
	same(t, "controller", metadata.Controller, metadata.Brokers[0].NodeID)
	var set kadm.TopicsSet
	set.Add(topic, 0)
	dirs := must[kadm.DescribedAllLogDirs](t)(adm.DescribeAllLogDirs(within(t), set))
	found := false
	dirs.Each(func(dir kadm.DescribedLogDir) {
		dir.Topics.Each(func(p kadm.DescribedLogDirPartition) { found = found || p.Topic == topic })
	})
	same(t, "in a directory", found, true)
	producers := must[kadm.DescribedProducersTopics](t)(adm.DescribeProducers(within(t), set))
	same(t, "producers", len(producers[topic].Partitions[0].ActiveProducers), 1)
	versions := must[kadm.BrokersApiVersions](t)(adm.ApiVersions(within(t)))
	for _, broker := range versions {
		low, high, _ := broker.KeyVersions(int16(kmsg.Produce))
		same(t, "produce, low", low, 0)
		same(t, "produce, high", high, 13)
	}
	// An epoch that ended, and the one that goes on.
	request := kmsg.NewPtrOffsetForLeaderEpochRequest()
	request.ReplicaID = -2
	asked := kmsg.NewOffsetForLeaderEpochRequestTopic()
	asked.Topic = topic
	partition := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	partition.CurrentLeaderEpoch = -1
	asked.Partitions = append(asked.Partitions, partition)
	request.Topics = append(request.Topics, asked)
	response := must[*kmsg.OffsetForLeaderEpochResponse](t)(request.RequestWith(within(t), cl))
	same(t, "error", response.Topics[0].Partitions[0].ErrorCode, 0)
	same(t, "end", response.Topics[0].Partitions[0].EndOffset, 1)
}
