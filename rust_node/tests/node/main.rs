//! The real process: one program for all of its tests, because each would link the whole node again.

mod audit;
mod command_line;
mod deployment;
mod dns;
mod hardening;
mod interop;
mod misbehaviour;
mod monitoring;
mod operator;
mod platforms;
mod reach;
mod support;
mod tls;
mod troubles;
