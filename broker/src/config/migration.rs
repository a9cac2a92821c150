//! Settings of Kafka that a migrated `server.properties` may hold and that Vltava does not have:
//! most change nothing and are accepted with a warning; the few that promise something to somebody
//! are refused, so that nobody believes they are kept.

/// Why a setting of Kafka must not be ignored with this value; `None` where it may be.
pub fn refusal(name: &str, value: &str) -> Option<&'static str> {
    let value = value.trim();
    match name {
        "authorizer.class.name" if !value.is_empty() => Some(
            "there is no authoriser yet, every client may do everything; remove the setting to \
             accept that",
        ),
        "create.topic.policy.class.name" | "alter.config.policy.class.name"
            if !value.is_empty() =>
        {
            Some(
                "Java plug-ins are not run, so the policy would not be kept; remove the setting to \
                 accept that",
            )
        }
        "client.quota.callback.class" if !value.is_empty() => {
            Some("there are no quotas yet; remove the setting to accept that")
        }
        "config.providers" if !value.is_empty() => Some(
            "values are not fetched from providers; write them into the file or pass them with \
             --set",
        ),
        "security.inter.broker.protocol" if !value.eq_ignore_ascii_case("PLAINTEXT") => {
            Some("only PLAINTEXT is served yet, nothing would be encrypted or authenticated")
        }
        "remote.log.storage.system.enable" if value.eq_ignore_ascii_case("true") => {
            Some("there is no tiered storage yet, nothing would be copied to the remote store")
        }
        "process.roles" if !value.split(',').any(|role| role.trim() == "broker") => {
            Some("each node is broker and controller; a controller alone does not exist")
        }
        "controller.quorum.voters" | "controller.quorum.bootstrap.servers"
            if value.split(',').filter(|voter| !voter.trim().is_empty()).count() > 1 =>
        {
            Some(
                "Kafka's quorum is not used: name the nodes in peers instead, or this one would \
                 stand alone, without replicas",
            )
        }
        _ => None,
    }
}

/// Whether Kafka 4.4, or a release before it, has a setting of this name that has no effect here.
pub fn is_known_to_kafka(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || ignored_names().any(|known| known == name)
}

/// The settings of Kafka that have no effect here, by name.
pub fn ignored_names() -> impl Iterator<Item = &'static str> {
    WITHOUT_EFFECT.split_whitespace().chain(REMOVED.split_whitespace())
}

/// Beginnings of names that users make up: settings of one listener, of a plug-in.
const PREFIXES: &[&str] = &["config.providers.", "listener.name.", "rlmm.config.", "rsm.config."];

/// Settings that Kafka had before 4.0 and that still stand in many files, and one that it does not
/// describe.
const REMOVED: &str = "
    broker.id.generation.enable control.plane.listener.name
    controlled.shutdown.max.retries controlled.shutdown.retry.backoff.ms
    delegation.token.master.key group.coordinator.new.enable
    inter.broker.protocol.version leader.imbalance.per.broker.percentage
    log.message.downconversion.enable
    log.initial.task.delay.ms log.message.format.version log.message.timestamp.difference.max.ms
    offsets.commit.required.acks password.encoder.secret reserved.broker.max.id
    zookeeper.connect zookeeper.connection.timeout.ms zookeeper.session.timeout.ms
    zookeeper.set.acl
";

/// Settings that Kafka 4.4 describes.
const WITHOUT_EFFECT: &str = "
    add.partitions.to.txn.retry.backoff.max.ms add.partitions.to.txn.retry.backoff.ms
    alter.config.policy.class.name alter.log.dirs.replication.quota.window.num
    alter.log.dirs.replication.quota.window.size.seconds authorizer.class.name
    background.threads broker.heartbeat.interval.ms
    broker.session.timeout.ms client.quota.callback.class config.providers
    connection.failed.authentication.delay.ms connections.max.reauth.ms
    controlled.shutdown.enable controller.listener.names controller.quorum.append.linger.ms
    controller.quorum.auto.join.enable controller.quorum.bootstrap.servers
    controller.quorum.election.backoff.max.ms controller.quorum.election.timeout.ms
    controller.quorum.fetch.max.bytes controller.quorum.fetch.snapshot.max.bytes
    controller.quorum.fetch.timeout.ms controller.quorum.request.timeout.ms
    controller.quorum.retry.backoff.ms controller.quorum.voters controller.quota.window.num
    controller.quota.window.size.seconds controller.socket.timeout.ms cordoned.log.dirs
    create.topic.policy.class.name delegation.token.expiry.check.interval.ms
    delegation.token.expiry.time.ms delegation.token.max.lifetime.ms
    delegation.token.secret.key delete.records.purgatory.purge.interval.requests
    early.start.listeners errors.deadletterqueue.auto.create.topics.enable
    errors.deadletterqueue.topic.name.prefix fetch.purgatory.purge.interval.requests
    follower.fetch.last.tiered.offset.enable group.consumer.assignment.interval.ms
    group.consumer.assignors group.consumer.heartbeat.interval.ms
    group.consumer.max.assignment.interval.ms group.consumer.max.heartbeat.interval.ms
    group.consumer.max.session.timeout.ms group.consumer.max.size
    group.consumer.migration.policy group.consumer.min.assignment.interval.ms
    group.consumer.min.heartbeat.interval.ms group.consumer.min.session.timeout.ms
    group.consumer.session.timeout.ms group.coordinator.append.linger.ms
    group.coordinator.background.threads group.coordinator.cached.buffer.max.bytes
    group.coordinator.rebalance.protocols group.coordinator.threads
    group.share.assignment.interval.ms group.share.assignors group.share.delivery.count.limit
    group.share.heartbeat.interval.ms group.share.max.assignment.interval.ms
    group.share.max.delivery.count.limit group.share.max.heartbeat.interval.ms
    group.share.max.partition.max.record.locks group.share.max.record.lock.duration.ms
    group.share.max.session.timeout.ms group.share.max.share.sessions group.share.max.size
    group.share.min.assignment.interval.ms group.share.min.delivery.count.limit
    group.share.min.heartbeat.interval.ms group.share.min.partition.max.record.locks
    group.share.min.record.lock.duration.ms group.share.min.session.timeout.ms
    group.share.partition.max.record.locks group.share.record.lock.duration.ms
    group.share.session.timeout.ms group.streams.assignment.interval.ms
    group.streams.assignors group.streams.heartbeat.interval.ms
    group.streams.initial.rebalance.delay.ms group.streams.max.assignment.interval.ms
    group.streams.max.heartbeat.interval.ms group.streams.max.session.timeout.ms
    group.streams.max.size group.streams.max.standby.replicas
    group.streams.min.assignment.interval.ms group.streams.min.heartbeat.interval.ms
    group.streams.min.session.timeout.ms group.streams.num.standby.replicas
    group.streams.rack.aware.assignment.tags group.streams.session.timeout.ms
    group.streams.topology.description.plugin.class initial.broker.registration.timeout.ms
    kafka.metrics.polling.interval.secs kafka.metrics.reporters
    log.cleaner.backoff.ms
    log.cleaner.dedupe.buffer.size log.cleaner.enable log.cleaner.io.buffer.load.factor
    log.cleaner.io.buffer.size log.cleaner.io.max.bytes.per.second log.cleaner.threads
    log.dir.failure.timeout.ms log.flush.offset.checkpoint.interval.ms
    log.flush.start.offset.checkpoint.interval.ms max.connection.creation.rate
    max.connections.per.ip.overrides metadata.log.dir
    metadata.log.max.record.bytes.between.snapshots metadata.log.max.snapshot.interval.ms
    metadata.log.segment.bytes metadata.log.segment.ms metadata.max.idle.interval.ms
    metadata.max.retention.bytes metadata.max.retention.ms metric.reporters
    metrics.num.samples metrics.recording.level metrics.sample.window.ms num.io.threads
    num.network.threads num.recovery.threads.per.data.dir num.replica.alter.log.dirs.threads
    num.replica.fetchers offsets.load.buffer.size offsets.topic.compression.codec
    principal.builder.class process.roles producer.purgatory.purge.interval.requests
    queued.max.request.bytes queued.max.requests quota.window.num quota.window.size.seconds
    remote.fetch.max.wait.ms remote.list.offsets.request.timeout.ms
    remote.log.index.file.cache.total.size.bytes remote.log.manager.copier.thread.pool.size
    remote.log.manager.copy.max.bytes.per.second remote.log.manager.copy.quota.window.num
    remote.log.manager.copy.quota.window.size.seconds
    remote.log.manager.expiration.thread.pool.size
    remote.log.manager.fetch.max.bytes.per.second remote.log.manager.fetch.quota.window.num
    remote.log.manager.fetch.quota.window.size.seconds
    remote.log.manager.follower.thread.pool.size remote.log.manager.task.interval.ms
    remote.log.manager.thread.pool.size remote.log.metadata.custom.metadata.max.bytes
    remote.log.metadata.manager.class.name remote.log.metadata.manager.class.path
    remote.log.metadata.manager.impl.prefix remote.log.metadata.manager.listener.name
    remote.log.reader.max.pending.tasks remote.log.reader.threads
    remote.log.storage.manager.class.name remote.log.storage.manager.class.path
    remote.log.storage.manager.impl.prefix remote.log.storage.system.enable
    replica.fetch.backoff.ms replica.fetch.max.bytes replica.fetch.min.bytes
    replica.fetch.response.max.bytes replica.fetch.wait.max.ms
    replica.high.watermark.checkpoint.interval.ms replica.socket.receive.buffer.bytes
    replica.socket.timeout.ms
    replication.quota.window.num replication.quota.window.size.seconds request.timeout.ms
    sasl.client.callback.handler.class sasl.enabled.mechanisms sasl.jaas.config
    sasl.kerberos.kinit.cmd sasl.kerberos.min.time.before.relogin
    sasl.kerberos.principal.to.local.rules sasl.kerberos.service.name
    sasl.kerberos.ticket.renew.jitter sasl.kerberos.ticket.renew.window.factor
    sasl.login.callback.handler.class sasl.login.class sasl.login.connect.timeout.ms
    sasl.login.read.timeout.ms sasl.login.refresh.buffer.seconds
    sasl.login.refresh.min.period.seconds sasl.login.refresh.window.factor
    sasl.login.refresh.window.jitter sasl.login.retry.backoff.max.ms
    sasl.login.retry.backoff.ms sasl.mechanism.controller.protocol
    sasl.mechanism.inter.broker.protocol sasl.oauthbearer.allow.unverified.audience
    sasl.oauthbearer.allow.unverified.issuer sasl.oauthbearer.assertion.algorithm
    sasl.oauthbearer.assertion.claim.aud sasl.oauthbearer.assertion.claim.exp.seconds
    sasl.oauthbearer.assertion.claim.iss sasl.oauthbearer.assertion.claim.jti.include
    sasl.oauthbearer.assertion.claim.nbf.seconds sasl.oauthbearer.assertion.claim.sub
    sasl.oauthbearer.assertion.file sasl.oauthbearer.assertion.private.key.file
    sasl.oauthbearer.assertion.private.key.passphrase
    sasl.oauthbearer.assertion.template.file sasl.oauthbearer.client.credentials.client.id
    sasl.oauthbearer.client.credentials.client.secret sasl.oauthbearer.clock.skew.seconds
    sasl.oauthbearer.expected.audience sasl.oauthbearer.expected.issuer
    sasl.oauthbearer.jwks.endpoint.refresh.ms
    sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms
    sasl.oauthbearer.jwks.endpoint.retry.backoff.ms sasl.oauthbearer.jwks.endpoint.url
    sasl.oauthbearer.jwt.retriever.class sasl.oauthbearer.jwt.validator.class
    sasl.oauthbearer.scope sasl.oauthbearer.scope.claim.name sasl.oauthbearer.sub.claim.name
    sasl.oauthbearer.token.endpoint.url sasl.server.callback.handler.class
    sasl.server.max.receive.size security.inter.broker.protocol security.providers
    share.coordinator.append.linger.ms share.coordinator.cached.buffer.max.bytes
    share.coordinator.load.buffer.size share.coordinator.snapshot.update.records.per.snapshot
    share.coordinator.state.topic.compression.codec share.coordinator.state.topic.min.isr
    share.coordinator.state.topic.num.partitions
    share.coordinator.state.topic.replication.factor
    share.coordinator.state.topic.segment.bytes share.coordinator.threads
    share.coordinator.write.timeout.ms share.fetch.purgatory.purge.interval.requests
    socket.connection.setup.timeout.max.ms socket.connection.setup.timeout.ms
    socket.receive.buffer.bytes socket.send.buffer.bytes ssl.allow.dn.changes
    ssl.allow.san.changes ssl.cipher.suites ssl.client.auth ssl.enabled.protocols
    ssl.endpoint.identification.algorithm ssl.engine.factory.class ssl.key.password
    ssl.keymanager.algorithm ssl.keystore.certificate.chain ssl.keystore.key
    ssl.keystore.location ssl.keystore.password ssl.keystore.type ssl.principal.mapping.rules
    ssl.protocol ssl.provider ssl.secure.random.implementation ssl.trustmanager.algorithm
    ssl.truststore.certificates ssl.truststore.location ssl.truststore.password
    ssl.truststore.type telemetry.max.bytes
    transaction.abort.timed.out.transaction.cleanup.interval.ms transaction.max.timeout.ms
    transaction.partition.verification.enable
    transaction.remove.expired.transaction.cleanup.interval.ms
    transaction.state.log.load.buffer.size transaction.state.log.min.isr
    transaction.state.log.num.partitions transaction.state.log.replication.factor
    transaction.state.log.segment.bytes transaction.two.phase.commit.enable
    transactional.id.expiration.ms
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::definitions::broker_setting;

    #[test]
    fn no_setting_is_both_ours_and_ignored() {
        for name in ignored_names() {
            assert!(broker_setting(name).is_none(), "{name}");
        }
    }

    #[test]
    fn names_of_kafka_are_known() {
        for name in ["num.io.threads", "ssl.keystore.location", "zookeeper.connect"] {
            assert!(is_known_to_kafka(name), "{name}");
        }
        assert!(is_known_to_kafka("listener.name.internal.ssl.keystore.location"));
        assert!(!is_known_to_kafka("num.io.thread"));
    }

    #[test]
    fn what_promises_something_is_refused() {
        for (name, value) in [
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("security.inter.broker.protocol", "SASL_SSL"),
            ("remote.log.storage.system.enable", "TRUE"),
            ("process.roles", "controller"),
            ("controller.quorum.voters", "1@a:9093,2@b:9093,3@c:9093"),
            ("config.providers", "vault"),
            ("create.topic.policy.class.name", "com.example.Policy"),
            ("client.quota.callback.class", "com.example.Quota"),
        ] {
            assert!(refusal(name, value).is_some(), "{name}");
        }
    }

    #[test]
    fn what_promises_nothing_passes() {
        for (name, value) in [
            ("authorizer.class.name", ""),
            ("security.inter.broker.protocol", "PLAINTEXT"),
            ("remote.log.storage.system.enable", "false"),
            ("process.roles", "broker,controller"),
            ("controller.quorum.voters", "1@localhost:9093"),
            ("num.io.threads", "8"),
        ] {
            assert!(refusal(name, value).is_none(), "{name}");
        }
    }
}
