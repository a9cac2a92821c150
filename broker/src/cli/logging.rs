//! Where log lines go: standard error, as text or as JSON, from a thread of its own so that no
//! shard waits for a terminal.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::error::CliError;
use super::timestamp;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line, for machines.
    Json,
}

/// Lines that still wait are written when this is dropped.
#[must_use = "lines that still wait are lost where it is dropped at once"]
pub struct Logging {
    _writer: WorkerGuard,
}

/// Starts logging for the process.
///
/// # Errors
/// Where the levels cannot be read.
pub fn start(format: LogFormat, levels: &str) -> Result<Logging, CliError> {
    let filter = filter(levels).map_err(|error| CliError::usage(format!("--log-level {error}")))?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(Utc).with_writer(writer);
    match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .event_format(TextLine)
            .init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init()
        }
    }
    Ok(Logging { _writer: guard })
}

/// A level, and levels by the names that stand in log lines: `info,net=debug`. A word alone is a
/// level: the filter would take any other for a module's name, and a slip of the pen would silence
/// the whole log.
fn filter(text: &str) -> Result<EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let mut directives = Vec::new();
    for word in text.split(',').map(str::trim) {
        let (target, level) = word.rsplit_once('=').unwrap_or(("", word));
        if !LEVELS.contains(&level.to_lowercase().as_str()) {
            let levels = LEVELS.join(", ");
            return Err(format!("{text}: {level:?} is no level; there are {levels}"));
        }
        // As a text line names it, and as a JSON line does.
        if !target.is_empty() {
            directives.push(format!("{OURS}{target}={level}"));
        }
        directives.push(word.to_owned());
    }
    EnvFilter::try_new(directives.join(",")).map_err(|error| format!("{text}: {error}"))
}

/// Now, as `2026-11-21T12:00:00.000Z`.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        writer.write_str(&timestamp::show(now_ms))
    }
}

/// `2026-11-21T12:00:00.000Z WARN  net::listener: refused a connection peer=127.0.0.1:4000`
struct TextLine;

impl<S, N> FormatEvent<S, N> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        Utc.format_time(&mut writer)?;
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() {
            write!(writer, " \x1b[{}m{level:<5}\x1b[0m ", colour(level))?;
        } else {
            write!(writer, " {level:<5} ")?;
        }
        write!(writer, "{}: ", shown(event.metadata().target()))?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// What our own lines' targets begin with.
const OURS: &str = "vltava::";

/// Where a line comes from: our rooms without the name of the crate, others whole.
fn shown(target: &str) -> &str {
    target.strip_prefix(OURS).unwrap_or(target)
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    }
}

#[cfg(test)]
mod tests {

    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(ansi: bool) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(ansi)
            .event_format(TextLine)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "vltava::net::listener", peer = 1, name = "a b", "refused\nit");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        for levels in ["info", "DEBUG", "info,net=debug", "info, vltava::net=debug", "off"] {
            assert!(filter(levels).is_ok(), "{levels}");
        }
        for levels in ["inof", "info,net", "net=debgu", "net=", "", "info,"] {
            assert!(filter(levels).unwrap_err().contains("is no level"), "{levels}");
        }
    }

    #[test]
    fn parts_have_the_names_that_stand_in_lines() {
        for (levels, is_shown) in [
            ("warn,net=debug", true),
            ("warn,net::listener=debug", true),
            ("warn,vltava::net=debug", true),
            ("warn,admin=debug", false),
            ("debug,net=warn", false),
        ] {
            let subscriber = tracing_subscriber::registry().with(filter(levels).unwrap());
            let enabled = tracing::subscriber::with_default(
                subscriber,
                || tracing::enabled!(target: "vltava::net::listener", Level::DEBUG),
            );
            assert_eq!(enabled, is_shown, "{levels}");
        }
    }

    #[test]
    fn a_line_is_short_and_one_line() {
        let line = logged(false);
        let (time, rest) = line.split_at("2026-11-21T12:00:00.000Z".len());
        assert!(time.ends_with('Z') && time.contains('T'), "{line}");
        assert!(rest.starts_with(" WARN  net::listener: refused"), "{line}");
        assert!(rest.ends_with(" peer=1 name=\"a b\"\n"), "{line}");
    }

    #[test]
    fn a_terminal_sees_colours() {
        let line = logged(true);
        assert!(line.contains(" \u{1b}[33mWARN \u{1b}[0m "), "{line:?}");
    }
}
