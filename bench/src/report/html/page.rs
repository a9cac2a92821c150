//! What stands where on the page.

use std::fmt::Write as _;

use super::escape::escaped;
use super::glance::{cards, overview, ratio_cell, spread_text};
use super::plot::Look;
use super::plots::plots;
use crate::measures::{MEASURES, Measure};
use crate::ratio::Spread;
use crate::report::figures::{bytes, moment, significant, some};
use crate::report::groups::{Group, groups};
use crate::report::table::{overload, verdict};
use crate::report::words;
use crate::result::RunResult;

const STYLE: &str = include_str!("style.css");

/// What every page says at its end.
const HOW_TO_READ: &str = "<section class=\"how\"><h2>How to read this</h2><dl>\
<dt>acknowledgement</dt><dd>From the moment at which a record was to be sent to the broker's \
answer that it is kept. At a fixed rate that moment is set beforehand: a broker that stalls is \
charged for every record that had to wait, also for those that could not be sent yet.</dd>\
<dt>end to end</dt><dd>From the same moment to the record's receipt by a consumer.</dd>\
<dt>p50, p99, p99.9</dt><dd>Half of all records, 99 of 100, 999 of 1,000 took this long or less.\
</dd>\
<dt>MB/s</dt><dd>Millions of bytes of keys and values a second, before compression.</dd>\
<dt>CPU, s/GB</dt><dd>Seconds of processor time that the broker's process took for each \
10<sup>9</sup> bytes written to it or read from it.</dd>\
<dt>the disk's own write</dt><dd>A 4 KiB overwrite with data sync, some twenty times a second \
beside the run: what the disk can do at best, at that time.</dd>\
<dt>verified</dt><dd>Everything that was acknowledged was received: as often as it should, in \
order, unchanged. A run that does not verify is not a result.</dd>\
<dt>×</dt><dd>One broker's figure divided by the other's, round by round, for brokers that took \
turns; the middle of the rounds, and in brackets their ends. Green and red only where all rounds \
agree, and by 5 % at least.</dd></dl></section>\n";

/// A page of these runs.
pub fn page(results: &[RunResult]) -> String {
    let groups = groups(results);
    let title = match groups.as_slice() {
        [group] => group.scenario.title.clone(),
        groups => format!("{} scenarios", groups.len()),
    };
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>\n",
        escaped(&title)
    );
    if groups.len() > 1 {
        let _ = writeln!(text, "<h1>{}</h1>", escaped(&title));
        text += &overview(&groups).unwrap_or_else(|| contents(&groups));
    }
    let heading = if groups.len() > 1 { "h2" } else { "h1" };
    for (number, group) in groups.iter().enumerate() {
        let _ = write!(text, "<section id=\"s{number}\">");
        text += &section(group, heading);
        text += "</section>\n";
    }
    text += HOW_TO_READ;
    text += "<footer>Made by vltava-bench</footer></main></body></html>\n";
    text
}

fn contents(groups: &[Group<'_>]) -> String {
    let link = |(number, group): (usize, &Group<'_>)| {
        format!("<li><a href=\"#s{number}\">{}</a></li>", escaped(&group.scenario.title))
    };
    let links: String = groups.iter().enumerate().map(link).collect();
    format!("<nav><ul>{links}</ul></nav>\n")
}

fn section(group: &Group<'_>, heading: &str) -> String {
    let mut text = format!("<{heading}>{}</{heading}>", escaped(&group.scenario.title));
    if !group.scenario.why.is_empty() {
        let _ = write!(text, "<p class=\"why\">{}</p>", escaped(&group.scenario.why));
    }
    text += &sides(group);
    text += &warnings(group);
    text += &cards(group);
    text += &plots(group);
    text += &figures(group);
    text += &circumstances(group);
    text
}

fn sides(group: &Group<'_>) -> String {
    let mut text = "<ul class=\"sides\">".to_owned();
    for (number, side) in group.sides.iter().enumerate() {
        let rounds = match side.runs.len() {
            1 => String::new(),
            rounds => format!(", {rounds} rounds"),
        };
        let classes = Look::Side(number).classes();
        let (label, by) = (escaped(side.label), side.runs.first().map(|run| run.reached_by()));
        let by = escaped(&by.unwrap_or_default());
        let _ =
            write!(text, "<li class=\"{classes}\"><b>{label}</b> <code>{by}</code>{rounds}</li>");
    }
    text + "</ul>"
}

/// What must be known before any figure is read.
fn warnings(group: &Group<'_>) -> String {
    let mut text = String::new();
    for run in group.runs() {
        let label = escaped(&run.label);
        if !run.verification.is_sound() {
            let why = escaped(&verdict(&run.verification));
            let _ = write!(text, "<p class=\"warning bad\"><b>{label}</b> {why}</p>");
        }
        if run.is_overloaded() {
            let why = overload(run);
            let _ = write!(text, "<p class=\"warning bad\"><b>{label}</b> {why}</p>");
        }
    }
    for side in &group.sides {
        let mut limits = side.runs.iter().filter_map(|run| run.harness.bottleneck.as_ref());
        let (count, rounds) = (limits.clone().count(), side.runs.len());
        if let Some(why) = limits.next() {
            let rounds = match rounds {
                1 => String::new(),
                _ => format!(" in {count} of {rounds} rounds"),
            };
            let (label, why) = (escaped(side.label), escaped(why));
            let _ = write!(
                text,
                "<p class=\"warning\"><b>{label}</b>{rounds}: {why}. The broker may do better than \
                 this.</p>"
            );
        }
    }
    if group.is_mixed() {
        text += "<p class=\"warning\">Runs of different settings stand under this title.</p>";
    }
    text
}

fn figures(group: &Group<'_>) -> String {
    let mut text = "<details open><summary>All figures</summary><div class=\"scroll\"><table>\
                    <thead><tr><th></th><th></th>"
        .to_owned();
    for side in &group.sides {
        let _ = write!(text, "<th>{}</th>", escaped(side.label));
    }
    if let [first, second] = group.sides.as_slice() {
        let (first, second) = (escaped(first.label), escaped(second.label));
        let _ = write!(text, "<th>{second} / {first}</th>");
    }
    text += "</tr></thead><tbody>";
    text.extend(MEASURES.iter().filter_map(|measure| row(group, measure)));
    text + "</tbody></table></div></details>\n"
}

fn row(group: &Group<'_>, measure: &Measure) -> Option<String> {
    let spreads: Vec<Option<Spread>> =
        group.sides.iter().map(|side| side.spread(measure)).collect();
    if spreads.iter().all(Option::is_none) {
        return None;
    }
    let unit = measure.unit;
    let mut text = format!("<tr><th>{}</th><td class=\"unit\">{unit}</td>", measure.name);
    for (side, spread) in group.sides.iter().zip(&spreads) {
        let text_of = |spread| spread_text(spread, side.is_bound(measure));
        let value = spread.as_ref().map_or_else(|| "–".to_owned(), text_of);
        let _ = write!(text, "<td>{value}</td>");
    }
    if group.sides.len() == 2 {
        text += &ratio_cell(group, measure);
    }
    Some(text + "</tr>")
}

/// What was run, on what, when, and whether it verified.
fn circumstances(group: &Group<'_>) -> String {
    let mut text = "<details><summary>What was run, where, and when</summary><ul>".to_owned();
    for phrase in words::describe(group.scenario) {
        let _ = write!(text, "<li>{}</li>", escaped(&phrase));
    }
    text += "</ul><ul>";
    for run in group.runs() {
        let _ = write!(
            text,
            "<li><b>{}</b> {}, {} s; {}; {}</li>",
            escaped(&run.label),
            moment(run.began_ms),
            significant(run.measured_s),
            escaped(&verdict(&run.verification)),
            escaped(&run.reached_by())
        );
    }
    text += "</ul>";
    let mut machines: Vec<String> = group.runs().map(machine).collect();
    machines.dedup();
    for machine in machines {
        let _ = write!(text, "<p>{machine}</p>");
    }
    // A scenario that was read can be written.
    let scenario = toml::to_string(group.scenario).unwrap_or_default();
    let _ = writeln!(text, "<pre>{}</pre></details>", escaped(&scenario));
    text
}

fn machine(run: &RunResult) -> String {
    let machine = &run.machine;
    let (processor, kernel) = (escaped(&machine.processor), escaped(&machine.kernel));
    let (cores, memory) = (some(machine.cores.into(), "core"), bytes(machine.memory_bytes));
    format!("The harness ran on: {processor}, {cores}, {memory} of memory, {kernel}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_page_needs_nothing_from_elsewhere() {
        let text = page(&[samples::run("kafka", 3.0), samples::run("vltava", 1.0)]);
        for foreign in ["http:", "https:", "<script", "<link", "url(", "@import"] {
            assert!(!text.contains(foreign), "{foreign}");
        }
        assert!(text.contains("prefers-color-scheme"));
    }

    #[test]
    fn what_is_opened_is_closed() {
        let text = page(&[samples::run("kafka", 3.0), samples::run("vltava", 1.0)]);
        for tag in ["svg", "g", "figure", "section", "details", "table", "ul", "div", "article"] {
            let opened = text.matches(&format!("<{tag}>")).count()
                + text.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, text.matches(&format!("</{tag}>")).count(), "{tag}");
            assert!(opened > 0, "{tag}");
        }
    }

    #[test]
    fn what_others_wrote_stays_text() {
        let mut run = samples::run("<img src=x onerror=y>", 1.0);
        run.verification.faults.push("<b>".to_owned());
        let text = page(&[run]);
        assert!(!text.contains("<img"), "a label");
        assert!(text.contains("a &lt;steady&gt; stream"));
        assert!(text.contains("NOT A RESULT"));
        assert!(text.contains("&lt;b&gt;"));
    }

    #[test]
    fn a_page_says_which_command_or_addresses_were_measured() {
        let mut runs = ["a", "b"].map(|label| samples::run(label, 1.0));
        runs[0].command = Some("serve <{port}>".to_owned());
        runs[1].addresses = vec!["x:1".to_owned(), "y:2".to_owned()];
        let text = page(&runs);
        assert!(text.contains("serve &lt;{port}&gt;"), "its command");
        assert!(text.contains("x:1,y:2"), "its addresses");
    }

    #[test]
    fn several_scenarios_have_an_overview() {
        let mut runs: Vec<RunResult> =
            ["a", "b", "a", "b"].iter().map(|label| samples::run(label, 1.0)).collect();
        runs.iter_mut().skip(2).for_each(|run| run.scenario.title = "second".to_owned());
        assert!(page(&runs).contains("b as a multiple of a"));
        assert!(page(&runs).contains("<a href=\"#s1\">second</a>"));
        runs.pop();
        assert!(!page(&runs).contains("multiple of a<"));
        assert!(page(&runs).contains("<nav>"));
    }

    #[test]
    fn two_brokers_are_compared_and_three_are_not() {
        let runs = ["a", "b", "c"].map(|label| samples::run(label, 1.0));
        assert!(page(&runs[..2]).contains("b / a"));
        assert!(!page(&runs).contains("b / a"));
    }
}
