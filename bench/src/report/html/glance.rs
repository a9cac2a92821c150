//! Figures at a glance: a card for each, a bar for each side.

use std::fmt::Write as _;

use super::escape::escaped;
use super::plot::Look;
use crate::measures::{Better, MEASURES, Measure};
use crate::ratio::{Ratio, Spread};
use crate::report::figures::significant;
use crate::report::groups::Group;

/// Brokers that took turns over several scenarios: a line for each scenario, with the second as a
/// multiple of the first. Nothing where these are not always the same two.
pub fn overview(groups: &[Group<'_>]) -> Option<String> {
    let labels = groups.first()?.labels();
    let [a, b] = labels.as_slice() else {
        return None;
    };
    if groups.iter().any(|group| group.labels() != labels) {
        return None;
    }
    let is_shown = |measure: &&Measure| {
        measure.is_headline && groups.iter().any(|group| group.ratio(measure).is_some())
    };
    let measures: Vec<&Measure> = MEASURES.iter().filter(is_shown).collect();
    let mut text = format!(
        "<div class=\"overview\"><p>{} as a multiple of {}</p><div class=\"scroll\"><table><thead>\
         <tr><th></th>",
        escaped(b),
        escaped(a)
    );
    for measure in &measures {
        let _ = write!(text, "<th>{} <small>{}</small></th>", measure.name, measure.unit);
    }
    text += "</tr></thead><tbody>";
    for (number, group) in groups.iter().enumerate() {
        let title = escaped(&group.scenario.title);
        let _ = write!(text, "<tr><th><a href=\"#s{number}\">{title}</a></th>");
        for measure in &measures {
            text += &ratio_cell(group, measure);
        }
        text += "</tr>";
    }
    Some(text + "</tbody></table></div></div>\n")
}

/// The second side as a multiple of the first, in a table.
pub fn ratio_cell(group: &Group<'_>, measure: &Measure) -> String {
    let ratio = group.ratio(measure).filter(|_| measure.better != Better::Neither);
    let class = ratio.as_ref().map_or("", |ratio| judged(ratio, measure.better));
    let value = ratio.as_ref().map_or_else(String::new, ratio_text);
    format!("<td class=\"{class}\">{value}</td>")
}

/// Cards for the figures that matter most.
pub fn cards(group: &Group<'_>) -> String {
    let headlines = MEASURES.iter().filter(|measure| measure.is_headline);
    let cards: String = headlines.filter_map(|measure| card(group, measure)).collect();
    format!("<div class=\"cards\">{cards}</div>\n")
}

fn card(group: &Group<'_>, measure: &Measure) -> Option<String> {
    let spreads: Vec<Option<Spread>> =
        group.sides.iter().map(|side| side.spread(measure)).collect();
    let most = spreads.iter().flatten().map(|spread| spread.most).fold(0.0, f64::max);
    if spreads.iter().all(Option::is_none) {
        return None;
    }
    let mut text = format!(
        "<article><h3>{}</h3><p class=\"unit\">{}{}</p>",
        measure.name,
        measure.unit,
        match measure.better {
            Better::More => ", more is better",
            Better::Less => ", less is better",
            Better::Neither => "",
        }
    );
    if let [Some(spread)] = spreads.as_slice() {
        let value = spread_text(spread, group.sides[0].is_bound(measure));
        let _ = write!(text, "<p class=\"value\">{value}</p></article>");
        return Some(text);
    }
    for (number, (side, spread)) in group.sides.iter().zip(&spreads).enumerate() {
        let classes = Look::Side(number).classes();
        let _ = write!(text, "<div class=\"bar {classes}\"><b>{}</b>", escaped(side.label));
        text += &match spread {
            Some(spread) => bar(spread, most, side.is_bound(measure)),
            None => "<i></i><span>not measured</span>".to_owned(),
        };
        text.push_str("</div>");
    }
    if let (Some(ratio), [first, second]) = (group.ratio(measure), group.sides.as_slice()) {
        let class = judged(&ratio, measure.better);
        let (first, second) = (escaped(first.label), escaped(second.label));
        let ratio = ratio_text(&ratio);
        let _ = write!(text, "<p class=\"ratio {class}\">{second} = {ratio} {first}</p>");
    }
    Some(text + "</article>")
}

fn bar(spread: &Spread, most: f64, is_bound: bool) -> String {
    let share = |value: f64| if most > 0.0 { value / most * 100.0 } else { 0.0 };
    let (least, median) = (share(spread.least), share(spread.median));
    let mut text = format!("<i><em style=\"width:{median:.1}%\"></em>");
    let is_spread = spread.least < spread.most;
    if is_spread {
        let width = share(spread.most) - least;
        let _ = write!(text, "<s style=\"left:{least:.1}%;width:{width:.1}%\"></s>");
    }
    let _ = write!(text, "</i><span>{}{}", at_least(is_bound), significant(spread.median));
    if is_spread {
        let (least, most) = (significant(spread.least), significant(spread.most));
        let _ = write!(text, "<small>{least} – {most}</small>");
    }
    text + "</span>"
}

/// `812`, with its ends where there were several rounds; `≥ 812` where it is a bound.
pub fn spread_text(spread: &Spread, is_bound: bool) -> String {
    let (Spread { least, median, most }, at_least) = (*spread, at_least(is_bound));
    if least == most {
        return format!("{at_least}{}", significant(median));
    }
    let (least, median, most) = (significant(least), significant(median), significant(most));
    format!("{at_least}{median} <small>({least} – {most})</small>")
}

fn at_least(is_bound: bool) -> &'static str {
    if is_bound { "≥ " } else { "" }
}

/// `0.21 ×`, with its ends where there were several rounds.
fn ratio_text(ratio: &Ratio) -> String {
    let Spread { least, median, most } = ratio.spread;
    let ends = match ratio.rounds {
        1 => String::new(),
        _ => format!(" <small>({} – {})</small>", significant(least), significant(most)),
    };
    format!("{} ×{ends}", significant(median))
}

/// Whether a ratio is good, bad, or nothing to speak of: below 5 %, or rounds that disagree.
fn judged(ratio: &Ratio, better: Better) -> &'static str {
    let is_more = ratio.spread.median > 1.0;
    if !ratio.is_clear() || (ratio.spread.median - 1.0).abs() < 0.05 {
        return "";
    }
    match (better, is_more) {
        (Better::Neither, _) => "",
        (Better::More, true) | (Better::Less, false) => "good",
        (Better::More, false) | (Better::Less, true) => "bad",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[test]
    fn only_a_clear_difference_is_judged() {
        let judged = |a: &[f64], b: &[f64], better| {
            let some = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
            super::judged(&Ratio::of(&some(a), &some(b)).unwrap(), better)
        };
        assert_eq!(judged(&[1.0, 1.0], &[0.5, 0.6], Better::Less), "good");
        assert_eq!(judged(&[1.0, 1.0], &[0.5, 0.6], Better::More), "bad");
        assert_eq!(judged(&[1.0, 1.0], &[0.5, 1.1], Better::Less), "");
        assert_eq!(judged(&[1.0], &[1.02], Better::More), "");
        assert_eq!(judged(&[1.0], &[3.0], Better::Neither), "");
    }

    #[test]
    fn the_longest_bar_is_the_largest_figure() {
        let spread = Spread { least: 40.0, median: 50.0, most: 100.0 };
        let text = bar(&spread, 200.0, true);
        assert!(text.contains("≥ 50.0"), "{text}");
        assert!(text.contains("width:25.0%"), "{text}");
        assert!(text.contains("left:20.0%;width:30.0%"), "{text}");
    }
}
