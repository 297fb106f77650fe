//! `integration/bench leftovers`: servers that a drain could not move in time. Measures how long each is
//! down, with `start_leftovers` and without it, where servers wait for the next sweep.

pub mod args;
pub mod run;
pub mod table;
