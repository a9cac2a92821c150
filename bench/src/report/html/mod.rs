//! A page of runs: self-contained, without scripts, for light and dark screens.
//!
//! Runs of one scenario stand side by side: their figures at a glance, their plots on the same
//! axes, then everything in a table.
//!
//! - `page`: what stands where. `glance`: figures as bars. `plots`: which plots there are.
//! - `plot` and `scale`: lines over axes, as inline SVG. `escape`: text stays text.

mod escape;
mod glance;
mod page;
mod plot;
mod plots;
mod scale;

pub use self::page::page;
