//! The command line of `integration/bench killed`.

use std::path::PathBuf;

use clap::Parser;

use crate::flags::{twice, writable};
use crate::store::{self, Store};
use crate::variant::Executor;

/// The command line as typed.
#[derive(Debug, Parser)]
#[command(
    name = "integration/bench killed",
    bin_name = "integration/bench killed",
    after_help = "Exits with 1 when fewer than 95 of 100 states are stored with durable_handoff that are without it: two runs of the same \
                  differ by a few."
)]
pub struct Args {
    /// Servers of the node that is killed, each with something to store
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub servers: u32,

    /// When the node is killed, in seconds after SIGTERM
    #[arg(long, value_delimiter = ',', value_name = "SECONDS,...", default_value = "2,5,10,20", value_parser = clap::value_parser!(u32).range(1..=120))]
    pub after: Vec<u32>,

    /// Where states are kept: directory, slots (8 requests at once, 10 ms each), or a URL such as
    /// s3://BUCKET/PATH
    #[arg(long, value_delimiter = ',', value_name = "STORE,...", default_value = "directory,slots", value_parser = place)]
    pub only: Vec<String>,

    /// A child stops before the servers and takes this long
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub slow_child_ms: u32,

    /// What decides in durable_handoff
    #[arg(long, value_enum, default_value_t = Executor::Embedded)]
    pub executor: Executor,

    /// Write the figures as JSON
    #[arg(long, value_name = "FILE", value_parser = writable)]
    pub json: Option<PathBuf>,
}

impl Args {
    /// Why these flags contradict each other, if they do.
    pub fn refused(&self) -> Option<String> {
        [twice("--only", &self.only), twice("--after", &self.after)].into_iter().flatten().next()
    }
}

/// The store that a value of `--only` names.
pub fn store(name: &str) -> Store {
    match name {
        "directory" => Store::Directory,
        "slots" => Store::Simulated { latency_ms: 10, slots: Some(8), error_rate: 0.0 },
        url => Store::Url { url: url.to_owned() },
    }
}

fn place(value: &str) -> Result<String, String> {
    if matches!(value, "directory" | "slots") {
        return Ok(value.to_owned());
    }
    match store::parse(value) {
        Ok(url) if url != "simulated" => Ok(url),
        _ => {
            Err("takes directory, slots, file:///DIR, s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from([&["integration/bench killed"], flags].concat())
    }

    #[test]
    fn a_store_is_chosen_by_name_or_url() {
        let args = parse(&["--only", "slots,directory,s3://bucket/x/"]).unwrap();
        assert_eq!(args.only, ["slots", "directory", "s3://bucket/x"]);
        assert_eq!(store(&args.only[2]), Store::Url { url: "s3://bucket/x".into() });
        assert_eq!((args.after, args.servers), (vec![2, 5, 10, 20], 5_000));
    }

    #[test]
    fn bad_values_are_refused_with_the_flag() {
        for flags in [["--only", "simulated"], ["--only", "tape"], ["--after", "0"], ["--slow-child-ms", "90000"]] {
            let message = parse(&flags).unwrap_err().to_string();
            assert!(message.contains(flags[0]), "{message}");
        }
        assert!(parse(&["--after", "2,2"]).unwrap().refused().unwrap().contains("--after names 2 twice"));
    }
}
