//! The figures of runs, in a terminal.

use std::fmt::Write as _;

use super::figures::{count, significant, some};
use super::groups::{Group, Side, groups};
use super::words;
use crate::engine::map::index;
use crate::measures::{Better, MEASURES, Measure};
use crate::ratio::{Ratio, Spread};
use crate::result::{RunResult, Verification};

/// A table for each scenario, a column for each broker; with exactly two of them, one more that
/// has the second as a multiple of the first.
pub fn table(results: &[RunResult]) -> String {
    let tables: Vec<String> = groups(results).iter().map(group).collect();
    tables.join("\n")
}

fn group(group: &Group<'_>) -> String {
    let mut text = format!("{}\n", group.scenario.title);
    for phrase in words::describe(group.scenario) {
        let _ = writeln!(text, "  {phrase}");
    }
    text.push('\n');
    let mut rows = vec![heads(group)];
    rows.extend(MEASURES.iter().filter_map(|measure| row(group, measure)));
    text += &aligned(&rows);
    if group.is_mixed() {
        text += "Runs of different settings stand under this title.\n";
    }
    for side in &group.sides {
        for (at, run) in side.runs.iter().enumerate() {
            let number = run.round.map_or(at + 1, |round| index(round.number));
            let round = if side.runs.len() > 1 { format!(", {number}") } else { String::new() };
            let _ = writeln!(text, "{}{round}: {}", side.label, verdict(&run.verification));
            if run.is_short() {
                let seconds = significant(run.measured_s);
                let _ = writeln!(text, "{}{round}: it was over after {seconds} s", side.label);
            }
            if run.is_overloaded() {
                let _ = writeln!(text, "{}{round}: {}", side.label, overload(run));
            }
            if let Some(why) = &run.harness.bottleneck {
                let _ = writeln!(text, "{}{round}: {why}", side.label);
            }
        }
    }
    text
}

fn heads(group: &Group<'_>) -> Vec<String> {
    let mut heads = vec![String::new(), String::new()];
    heads.extend(group.sides.iter().map(|side: &Side<'_>| side.label.to_owned()));
    if let [first, second] = group.sides.as_slice() {
        heads.push(format!("{} / {}", second.label, first.label));
    }
    heads
}

fn row(group: &Group<'_>, measure: &Measure) -> Option<Vec<String>> {
    let spreads: Vec<Option<Spread>> =
        group.sides.iter().map(|side| side.spread(measure)).collect();
    if spreads.iter().all(Option::is_none) {
        return None;
    }
    let mut row = vec![measure.name.to_owned(), measure.unit.to_owned()];
    row.extend(group.sides.iter().zip(&spreads).map(|(side, spread)| {
        let bound = if side.is_bound(measure) { ">= " } else { "" };
        spread.as_ref().map_or("-".into(), |spread| format!("{bound}{}", spread_text(spread)))
    }));
    if group.sides.len() == 2 {
        let ratio = group.ratio(measure).filter(|_| measure.better != Better::Neither);
        row.push(ratio.as_ref().map_or_else(String::new, ratio_text));
    }
    Some(row)
}

/// `812`, or `812 (790 - 830)` where there were several rounds.
fn spread_text(spread: &Spread) -> String {
    let Spread { least, median, most } = spread;
    if least == most {
        return significant(*median);
    }
    format!("{} ({} - {})", significant(*median), significant(*least), significant(*most))
}

/// `0.21 x`, or `0.21 x (0.19 - 0.24)`.
fn ratio_text(ratio: &Ratio) -> String {
    let Spread { least, median, most } = ratio.spread;
    if ratio.rounds == 1 {
        return format!("{} x", significant(median));
    }
    format!("{} x ({} - {})", significant(median), significant(least), significant(most))
}

/// That a run did not hold its rate, and what that means.
pub fn overload(run: &RunResult) -> String {
    let unsent = some(run.unsent, "record");
    let were = if run.unsent == 1 { "was" } else { "were" };
    format!(
        "did not hold the rate: {unsent} {were} never sent; latencies are what was waited \
         until the end, at least"
    )
}

/// Whether a run counts, and why not.
pub fn verdict(verification: &Verification) -> String {
    let Verification { acknowledged, expected, received, .. } = verification;
    let mut text = match verification.is_sound() {
        true => "verified".to_owned(),
        false => "NOT A RESULT".to_owned(),
    };
    let _ = write!(text, ": {} acknowledged", count(*acknowledged));
    if *expected > 0 {
        let _ = write!(text, ", {} of {} received", count(*received), count(*expected));
    }
    for (number, what) in [
        (verification.failed, "failed"),
        (verification.missing, "missing"),
        (verification.repeated, "repeated"),
        (verification.out_of_order, "out of order"),
        (verification.corrupt, "not what was sent"),
        (verification.restamped, "with another timestamp"),
    ] {
        if number > 0 {
            let _ = write!(text, ", {} {what}", count(number));
        }
    }
    if verification.resent > 0 || verification.reconnects > 0 {
        let resent = count(verification.resent);
        let lost = some(verification.reconnects, "connection");
        let _ = write!(text, ", {resent} sent again, {lost} lost");
    }
    for fault in &verification.faults {
        let _ = write!(text, "; {fault}");
    }
    text
}

/// Columns as wide as they need to be; names to the left, figures to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(line, "{cell:width$}"),
                1 => write!(line, "  {cell:width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn one_run_is_a_column() {
        let text = table(&[samples::run("vltava", 1.0)]);
        let line = |name: &str| text.lines().find(|line| line.starts_with(name));
        assert_eq!(
            line("acknowledgement, p99 ").map(|line| line.split_whitespace().collect::<Vec<_>>()),
            Some(vec!["acknowledgement,", "p99", "ms", "4.95"]),
            "{text}"
        );
        assert!(text.contains("vltava: verified: 200,000 acknowledged"), "{text}");
        assert!(!text.contains(" x"), "{text}");
    }

    #[test]
    fn two_brokers_have_a_ratio() {
        let runs = ["a", "b", "a", "b"].map(|label| samples::run(label, 1.0));
        let mut runs = Vec::from(runs);
        runs[3].produced.bytes *= 2;
        let text = table(&runs);
        assert!(text.contains("b / a"), "{text}");
        let megabytes = text.lines().find(|line| line.contains("MB/s")).unwrap_or_default();
        assert!(megabytes.contains("1.50 x (1.00 - 2.00)"), "{text}");
        assert!(text.contains("b, 2: verified"), "{text}");
    }

    #[test]
    fn what_was_over_early_says_when() {
        let mut run = samples::run("a", 1.0);
        assert!(!table(&[run.clone()]).contains("it was over"), "{}", run.measured_s);
        run.measured_s = 0.0941;
        assert!(table(&[run]).contains("a: it was over after 0.0941 s\n"));
    }

    #[test]
    fn a_run_that_did_not_hold_its_rate_knows_bounds_only() {
        let mut runs = ["a", "b"].map(|label| samples::run(label, 1.0));
        runs[1].unsent = 5000;
        runs[1].scenario.run.duration_s += 1.0;
        let text = table(&runs);
        let p99 = text.lines().find(|line| line.starts_with("acknowledgement, p99 "));
        assert!(p99.is_some_and(|line| line.ends_with("4.95  >= 4.95")), "{text}");
        assert!(text.contains("b: did not hold the rate: 5,000 records were never sent"), "{text}");
        assert!(text.contains("Runs of different settings"), "{text}");
        assert!(!table(&runs[..1]).contains("Runs of different settings"));
    }

    #[test]
    fn a_round_that_does_not_verify_is_in_no_ratio() {
        let mut runs = Vec::from(["a", "b", "a", "b"].map(|label| samples::run(label, 1.0)));
        runs[3].produced.bytes *= 100;
        runs[3].verification.repeated = 1;
        let text = table(&runs);
        let megabytes = text.lines().find(|line| line.contains("MB/s")).unwrap_or_default();
        assert!(megabytes.ends_with("  1.00 x"), "one round is left: {text}");
    }

    #[test]
    fn a_run_that_does_not_verify_says_so() {
        let mut run = samples::run("a", 1.0);
        run.verification.missing = 3;
        run.verification.faults.push("partition 7 was gone".to_owned());
        run.harness.bottleneck = Some("a worker ran 97 % of its time".to_owned());
        let text = table(&[run]);
        assert!(text.contains("NOT A RESULT"), "{text}");
        assert!(text.contains("3 missing; partition 7 was gone"), "{text}");
        assert!(text.contains("a: a worker ran 97 %"), "{text}");
        assert!(!text.contains("MB/s"), "it has no figures: {text}");
    }
}
