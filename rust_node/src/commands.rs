//! The commands. [`exit`] lists how they end.

pub mod audit;
mod columns;
pub mod drain;
pub mod exit;
pub mod nodes;
pub mod run;
pub mod status;
