//! What a person sees of a run.
//!
//! - [`live`]: a line a second while it runs. [`table`](mod@table): its figures, in a terminal.
//! - [`html`]: a page with plots, of one run or of several side by side.
//! - [`groups`]: which runs belong side by side. [`figures`] and [`words`]: how numbers and
//!   scenarios are written.

pub mod figures;
pub mod groups;
pub mod html;
pub mod live;
pub mod table;
pub mod words;

#[cfg(test)]
pub(crate) mod samples;
