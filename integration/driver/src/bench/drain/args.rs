//! The command line of `integration/bench drain`.

use std::path::PathBuf;

use clap::Parser;

use super::contender::Contender;
use super::shape::Shape;
use crate::flags::{twice, writable};
use crate::settings::{CallKind, Concurrency};
use crate::variant::Executor;

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(
    name = "integration/bench drain",
    bin_name = "integration/bench drain",
    after_help = "All servers are on the node that stops, and clients call. The ratios are to the best task stream on the same \
                  store: the one with the shortest gaps, and the one that was done first. Heartbeats come every second and discovery \
                  every 10 s (60 s in production), which makes graceful shutdown look better.\n\
                  Exits with 1 when anything was lost or there twice, when a server of durable_handoff or of graceful shutdown runs \
                  nowhere at the end, or when another executor decided."
)]
pub struct Args {
    /// Servers of the node that stops
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub servers: u32,

    /// What to measure on
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "STORE,...",
        default_value = "instant,latency,slots,few-slots,slow-start"
    )]
    pub stores: Vec<Shape>,

    /// Task streams with this many moves at a time
    #[arg(long, value_delimiter = ',', value_name = "N,...", default_value = "8,50", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub streams: Vec<u32>,

    /// What decides in durable_handoff
    #[arg(long, value_enum, value_delimiter = ',', value_name = "EXECUTOR,...", default_value = "embedded")]
    pub executor: Vec<Executor>,

    /// The highest number of parallel moves in durable_handoff, which searches for the best number for the
    /// store
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_concurrency: u32,

    /// How durable_handoff chooses the number of parallel moves
    #[arg(long, value_enum, value_name = "HOW", default_value = "adaptive")]
    pub concurrency: Concurrency,

    /// The stores on which graceful shutdown is measured, too: about 15 s each, and its time hardly depends
    /// on the store
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STORE,...", default_value = "latency")]
    pub graceful: Vec<Shape>,

    /// The nodes to move to. A task stream fills one of them at a time, durable_handoff all together. Several nodes that
    /// work on the same few processors use more of them for the same moves, so compare CPU with one target
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub targets: u32,

    /// Measure a second drain: first durable_handoff drains a node with as many servers for each of the others as
    /// --servers says, then one of these stops
    #[arg(long)]
    pub second: bool,

    /// What the clients' calls do. After calls that change, durable_handoff stores each state before it moves
    /// the server; with calls that only read it has nothing to store
    #[arg(long, value_enum, value_name = "KIND", default_value = "change")]
    pub calls: CallKind,

    /// The number of other processes that only compute meanwhile
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub busy: u32,

    /// Rounds, in which all are measured in turn; the figures are medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE", value_parser = writable)]
    pub json: Option<PathBuf>,
}

impl Args {
    /// Why these flags contradict each other, if they do.
    pub fn refused(&self) -> Option<String> {
        let shown = |shapes: &[Shape]| shapes.iter().map(crate::flags::flag_value).collect::<Vec<_>>();
        [
            twice("--stores", &shown(&self.stores)),
            twice("--graceful", &shown(&self.graceful)),
            twice("--streams", &self.streams),
            twice("--executor", &self.executor),
        ]
        .into_iter()
        .flatten()
        .next()
    }

    /// What is measured on a store, in this order.
    pub fn contenders(&self, shape: Shape) -> Vec<Contender> {
        let graceful = self.graceful.contains(&shape).then_some(Contender::Graceful);
        let streams = self.streams.iter().map(|&at_once| Contender::Stream(at_once));
        let ours = self.executor.iter().map(|&executor| Contender::Handoff(executor));
        graceful.into_iter().chain(streams).chain(ours).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["integration/bench drain"], flags].concat())
    }

    #[test]
    fn every_store_is_measured_with_streams_and_one_with_graceful_shutdown() {
        let args = parse(&[]).unwrap();
        let names = |shape| args.contenders(shape).into_iter().map(Contender::name).collect::<Vec<_>>();
        assert_eq!(names(Shape::Slots), ["task stream, 8 at once", "task stream, 50 at once", "durable_handoff"]);
        assert_eq!(names(Shape::Latency)[0], "graceful shutdown");
        assert_eq!(args.refused(), None);
    }

    #[test]
    fn bad_values_are_refused_with_the_flag() {
        for (flags, expected) in [
            (["--stores", "tape"], "slow-start"),
            (["--streams", "0"], "1..=10000"),
            (["--rounds", "0"], "1..=100"),
            (["--targets", "0"], "1..=16"),
            (["--json", "/no/such/directory/x.json"], "does not exist"),
        ] {
            let message = parse(&flags).unwrap_err().to_string();
            assert!(message.contains(flags[0]) && message.contains(expected), "{message}");
        }
        let refused = parse(&["--streams", "8,50,8"]).unwrap().refused().unwrap();
        assert!(refused.contains("--streams names 8 twice"), "{refused}");
    }
}
