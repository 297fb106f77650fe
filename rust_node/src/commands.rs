//! The commands of `durable-handoff-node`. [`exit`] lists their exit codes.

mod agent;
pub mod audit;
mod columns;
pub mod cordon;
pub mod doctor;
pub mod drain;
pub mod exit;
pub mod nodes;
pub mod rebalance;
pub mod relocate;
pub mod run;
pub mod status;
