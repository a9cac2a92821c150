//! Names as Kafka writes them, and as Rust does.

/// `TransactionalId` to `transactional_id`; `KRaftVersion` to `k_raft_version`.
pub fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 4);
    for (at, &c) in chars.iter().enumerate() {
        let follows_lower = at > 0 && !chars[at - 1].is_uppercase();
        let precedes_lower = chars.get(at + 1).is_some_and(|next| next.is_lowercase());
        if c.is_uppercase() && at > 0 && (follows_lower || precedes_lower) {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The Rust field for a schema field: snake case, raw where it is a keyword.
pub fn field_name(name: &str) -> String {
    let snake = snake_case(name);
    match snake.as_str() {
        "type" | "match" | "ref" | "move" | "enum" | "struct" | "use" | "where" | "loop" => {
            format!("r#{snake}")
        }
        _ => snake,
    }
}

/// Whether a name of the schema is one: a letter in upper case, then letters and digits.
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_rusts() {
        for (kafka, rust) in [
            ("TransactionalId", "transactional_id"),
            ("V3AndBelowTopics", "v3_and_below_topics"),
            ("Enable2Pc", "enable2_pc"),
            ("KRaftVersionFeature", "k_raft_version_feature"),
            ("Match", "match"),
        ] {
            assert_eq!(snake_case(kafka), rust);
        }
        assert_eq!(field_name("Match"), "r#match");
        assert!(!is_name("timeoutMs") && !is_name("") && !is_name("A_B"));
    }
}
