//! Tests of the real process, in one test program: each further program would link the whole node again.

mod audit;
#[path = "../../examples/node_bench/certificates.rs"]
mod certificates;
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
mod starting;
mod support;
mod tls;
mod troubles;
