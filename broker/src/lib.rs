//! The server, room by room, from the ground up: a room names only rooms that stand above it in this list.

pub mod runtime;
pub mod machine;
