//! Which names a topic may have: Kafka's rules, in Kafka's words.

/// Longest name, in characters (which are bytes: a name is ASCII).
pub const TOPIC_NAME_CHARS_MAX: usize = 249;

/// Group 0's own topic. Not in the image, and not for clients.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Where groups keep their offsets and members.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// Topics that belong to the brokers: clients read them, and only Kafka's own tools write to them.
const INTERNAL: &[&str] = &[CONSUMER_OFFSETS, "__transaction_state", "__share_group_state"];

/// Whether a topic belongs to the brokers.
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Checks a name. The error says what is wrong with it, as Kafka does (INVALID_TOPIC_EXCEPTION).
pub fn validate(name: &str) -> Result<(), String> {
    let reason = match name {
        "" => "the empty string is not allowed".to_string(),
        "." => "'.' is not allowed".to_string(),
        ".." => "'..' is not allowed".to_string(),
        _ if name.chars().count() > TOPIC_NAME_CHARS_MAX => {
            format!(
                "the length of '{name}' is longer than the max allowed length \
                 {TOPIC_NAME_CHARS_MAX}"
            )
        }
        _ if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {
            format!(
                "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
                 and '-'"
            )
        }
        _ => return Ok(()),
    };
    Err(format!("Topic name is invalid: {reason}"))
}

/// The name under which topics collide: metrics cannot tell `a.b` from `a_b`. `None` for a name
/// that collides with none.
pub fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kafka_takes() {
        for name in ["a", "a.b", "a_b", "A-Z0", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(validate(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_kafka_refuses() {
        for (name, reason) in [
            ("", "Topic name is invalid: the empty string is not allowed"),
            (".", "Topic name is invalid: '.' is not allowed"),
            ("..", "Topic name is invalid: '..' is not allowed"),
            (
                "a/b",
                "Topic name is invalid: 'a/b' contains one or more characters other than ASCII \
                 alphanumerics, '.', '_' and '-'",
            ),
        ] {
            assert_eq!(validate(name).unwrap_err(), reason);
        }
        for name in ["a b", "é", "a\0", "a:b", &"x".repeat(250), &"é".repeat(250)] {
            assert!(validate(name).is_err(), "{name}");
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        assert_eq!(collision_key("a.b"), collision_key("a_b"));
        assert_eq!(collision_key("ab"), None);
        assert_ne!(collision_key("a.b"), collision_key("a.c"));
    }

    #[test]
    fn internal_topics() {
        assert!(is_internal("__consumer_offsets") && !is_internal("orders"));
        assert!(!is_internal(CLUSTER_METADATA));
    }
}
