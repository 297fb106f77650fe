//! The commands. [`exit`] lists how they end.

mod agent;
pub mod audit;
mod columns;
pub mod doctor;
pub mod drain;
pub mod exit;
pub mod nodes;
pub mod run;
pub mod status;
