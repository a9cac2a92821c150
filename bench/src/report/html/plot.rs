//! A plot: lines over two axes, as inline SVG.

use std::fmt::Write as _;

use super::escape::escaped;
use super::scale::Scale;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 26.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;
/// Above this many points a line has one note, not one at each point.
const NOTED_POINTS_MAX: usize = 150;

/// A plot.
pub struct Plot {
    /// What it shows, with its unit.
    pub title: String,
    /// How to read it, in a sentence.
    pub hint: &'static str,
    /// What is along.
    pub along: &'static str,
    /// Along.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// An axis.
pub struct Axis {
    /// Where values stand on it.
    pub scale: Scale,
    /// How it writes a value.
    pub text: fn(f64) -> String,
}

/// A line.
pub struct Line {
    /// Whose it is, for the legend.
    pub side: String,
    /// What it is, which may be one of several rounds.
    pub name: String,
    /// How it looks.
    pub look: Look,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// In the colour of this side.
    Side(usize),
    /// The same, for a further round of it.
    Again(usize),
    /// Something to compare with, dashed and grey.
    Reference,
}

/// Colours that there are; further sides begin again, dashed.
const COLOURS: usize = 6;

impl Look {
    /// Its classes in the page's style.
    pub fn classes(self) -> String {
        let side = |side: usize| {
            let dashed = if side >= COLOURS { " dashed" } else { "" };
            format!("side{}{dashed}", side % COLOURS)
        };
        match self {
            Self::Side(number) => side(number),
            Self::Again(number) => format!("{} again", side(number)),
            Self::Reference => "reference dashed".to_owned(),
        }
    }
}

impl Plot {
    /// A figure: title, legend, plot. Nothing where no line has a point.
    pub fn figure(&self) -> String {
        if self.lines.iter().all(|line| line.points.is_empty()) {
            return String::new();
        }
        let title = escaped(&self.title);
        let mut text = format!("<figure><figcaption><h3>{title}</h3><p>{}</p>", self.hint);
        text += &self.legend();
        let _ = write!(
            text,
            "</figcaption><div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{title}\">"
        );
        self.axes(&mut text);
        // What comes later lies above: each side's first round, so the others come before.
        let (firsts, others): (Vec<&Line>, Vec<&Line>) =
            self.lines.iter().partition(|line| matches!(line.look, Look::Side(_)));
        for line in others.iter().chain(&firsts) {
            self.line(&mut text, line);
        }
        text + "</svg></div></figure>\n"
    }

    fn legend(&self) -> String {
        let mut text = "<ul class=\"legend\">".to_owned();
        for line in self.lines.iter().filter(|line| !matches!(line.look, Look::Again(_))) {
            let (classes, name) = (line.look.classes(), escaped(&line.side));
            let _ = write!(
                text,
                "<li class=\"{classes}\"><svg viewBox=\"0 0 22 8\" width=\"22\" height=\"8\">\
                 <path class=\"line\" d=\"M1 4H21\"/></svg>{name}</li>"
            );
        }
        if self.lines.iter().any(|line| matches!(line.look, Look::Again(_))) {
            text += "<li>thin: further rounds</li>";
        }
        text + "</ul>"
    }

    fn axes(&self, text: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in self.y.scale.ticks() {
            let y = y_of(tick.at);
            let value = (self.y.text)(tick.value);
            let _ = write!(
                text,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for tick in self.x.scale.ticks() {
            let x = x_of(tick.at);
            let value = (self.x.text)(tick.value);
            let _ = write!(
                text,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}\
                 </text>",
                bottom + 17.0
            );
        }
        let _ = write!(
            text,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 8.0,
            self.along
        );
    }

    fn line(&self, text: &mut String, line: &Line) {
        if line.points.is_empty() {
            return;
        }
        let place = |(x, y): (f64, f64)| (x_of(self.x.scale.at(x)), y_of(self.y.scale.at(y)));
        let name = escaped(&line.name);
        let _ = write!(text, "<g class=\"{}\"><path class=\"line\" d=\"", line.look.classes());
        for (at, point) in line.points.iter().enumerate() {
            let (x, y) = place(*point);
            let _ = write!(text, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        let _ = write!(text, "\"><title>{name}</title></path>");
        if line.points.len() <= NOTED_POINTS_MAX {
            for point in &line.points {
                let (x, y) = place(*point);
                let (along, up) = ((self.x.text)(point.0), (self.y.text)(point.1));
                let _ = write!(
                    text,
                    "<circle class=\"note\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\">\
                     <title>{name}: {up} at {along}</title></circle>"
                );
            }
        }
        text.push_str("</g>");
    }
}

fn x_of(at: f64) -> f64 {
    LEFT + at * (WIDTH - LEFT - RIGHT)
}

fn y_of(at: f64) -> f64 {
    HEIGHT - BOTTOM - at * (HEIGHT - BOTTOM - TOP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figures;

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        let axis = || Axis { scale: Scale::Linear { most: 10.0 }, text: figures::plain };
        let line =
            Line { side: "<a>".to_owned(), name: "<a>".to_owned(), look: Look::Side(7), points };
        Plot {
            title: "t".to_owned(),
            hint: "h",
            along: "s",
            x: axis(),
            y: axis(),
            lines: vec![line],
        }
    }

    #[test]
    fn points_stand_where_their_values_say() {
        let text = plot(vec![(0.0, 0.0), (10.0, 10.0)]).figure();
        assert!(text.contains("d=\"M72.0 274.0L614.0 12.0\""), "{text}");
        assert!(text.contains("&lt;a&gt;: 10 at 10"), "{text}");
        assert!(text.contains("class=\"side1 dashed\""), "{text}");
    }

    #[test]
    fn what_has_no_points_has_no_plot() {
        assert_eq!(plot(Vec::new()).figure(), "");
    }

    #[test]
    fn a_long_line_has_one_note() {
        let text = plot((0..500).map(|x| (f64::from(x), 1.0)).collect()).figure();
        assert!(!text.contains("<circle"), "{text}");
    }
}
