//! Where a broker listens.

use std::fmt;
use std::str::FromStr;

use crate::error::ClientError;

/// The port that brokers listen on if nobody says otherwise.
const PORT_DEFAULT: u16 = 9092;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address, the latter without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Address {
    /// Several addresses, with commas between them.
    pub fn list(text: &str) -> Result<Vec<Self>, ClientError> {
        text.split(',').map(|part| part.trim().parse()).collect()
    }
}

impl FromStr for Address {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ClientError::Address(text.to_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
                (host, rest.strip_prefix(':').filter(|_| !rest.is_empty()))
            }
            // More than one colon without brackets is an IPv6 address and no port.
            None => match text.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (text, None),
            },
        };
        let port = port.map_or(Ok(PORT_DEFAULT), str::parse).map_err(|_| wrong())?;
        if host.is_empty() || host.contains(char::is_whitespace) || port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, shown) in [
            ("localhost", "localhost:9092"),
            ("kafka.example:1", "kafka.example:1"),
            ("127.0.0.1:19092", "127.0.0.1:19092"),
            ("[::1]:9093", "[::1]:9093"),
            ("[::1]", "[::1]:9092"),
            ("::1", "[::1]:9092"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
        }
        for text in ["", ":9092", "a:b", "a:70000", "a:0", "[::1", "a b:1", "a:"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        assert_eq!(Address::list("a:1, b:2").unwrap().len(), 2);
    }
}
