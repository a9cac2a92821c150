//! Groups of real nodes over disks and a network that do their worst, under checks that know what
//! must hold: by chance (`random`), by all orders of a few events (`exhaustive`), by hand
//! (`stories`), and beside another implementation (`oracle`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails may panic")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]

mod checks;
mod exhaustive;
mod oracle;
mod random;
mod stories;
mod world;
