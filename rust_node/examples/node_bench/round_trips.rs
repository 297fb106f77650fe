//! Round trips with a process that echoes integers on a BEAM: from Rust, and from another BEAM.

use std::time::{Duration, Instant};

use anyhow::Context;
use etf::{atom, tuple, uint};
use rust_node::distribution::dial::dial;
use rust_node::distribution::tls::{Tls, TlsFiles};
use rust_node::distribution::{Inbound, Mailbox, Node, Process, names};
use serde::Serialize;
use tokio::time::timeout;

use crate::beam::{SOON, cpu, elixir, own_node, unique};
use crate::certificates;

#[derive(Debug, Serialize)]
pub struct RoundTrips {
    transport: &'static str,
    in_flight: u32,
    /// Round trips a second of each round.
    rust: Vec<f64>,
    beam: Vec<f64>,
    rust_median: f64,
    beam_median: f64,
    /// Rust's median divided by the BEAM's.
    ratio: f64,
    /// CPU time of the asking side for one round trip, over all rounds, microseconds.
    rust_cpu_us: f64,
    beam_cpu_us: f64,
}

/// The result of one side in one or several rounds.
#[derive(Debug, Default)]
struct Done {
    round_trips: u32,
    took: Duration,
    cpu: Duration,
}

impl Done {
    fn per_second(&self) -> f64 {
        f64::from(self.round_trips) / self.took.as_secs_f64()
    }

    fn add(&mut self, other: &Done) {
        self.round_trips += other.round_trips;
        self.took += other.took;
        self.cpu += other.cpu;
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / f64::from(self.round_trips)
    }
}

pub async fn measure(rounds: usize, round_ms: u64) -> anyhow::Result<Vec<RoundTrips>> {
    let directory = tempfile::tempdir()?;
    let erl = format!("-proto_dist inet_tls {}", certificates::write(directory.path(), directory.path())?);
    let file = |name: &str| directory.path().join(name);
    let tls = Tls::load(&TlsFiles { ca: file("ca.pem"), certificate: file("cert.pem"), key: file("key.pem") })?;
    let mut rows = Vec::new();
    for (transport, tls, erl) in [("tcp", None, String::new()), ("tls", Some(tls), erl)] {
        let (echo, asker) = (unique("echo", "localhost"), unique("asker", "localhost"));
        let _echo = elixir(&echo, &erl)?;
        let asking = elixir(&asker, &erl)?;
        let node = own_node(&unique("rust", "localhost"), tls)?;
        let mut mailbox = node.register("bench").context("the name is free")?;
        for name in [&echo, &asker] {
            dial(&node, &names::parse(name)?.into()).await?;
        }
        for in_flight in [1, 64] {
            let (mut rust, mut beam) = (Vec::new(), Vec::new());
            let (mut all_rust, mut all_beam) = (Done::default(), Done::default());
            // The first round of each side is a warm-up.
            for round in 0..=rounds {
                let of_rust = from_rust(&node, &mut mailbox, &echo, in_flight, round_ms).await?;
                let before = asking.cpu()?;
                let mut of_beam = from_beam(&node, &mut mailbox, &asker, &echo, in_flight, round_ms).await?;
                of_beam.cpu = asking.cpu()? - before;
                if round > 0 {
                    rust.push(of_rust.per_second());
                    beam.push(of_beam.per_second());
                    all_rust.add(&of_rust);
                    all_beam.add(&of_beam);
                }
            }
            let (rust_median, beam_median) = (median(&rust), median(&beam));
            rows.push(RoundTrips {
                transport,
                in_flight,
                rust,
                beam,
                rust_median,
                beam_median,
                ratio: rust_median / beam_median,
                rust_cpu_us: all_rust.cpu_us(),
                beam_cpu_us: all_beam.cpu_us(),
            });
        }
        node.stop();
    }
    Ok(rows)
}

async fn from_rust(
    node: &Node,
    mailbox: &mut Mailbox,
    echo: &str,
    in_flight: u32,
    round_ms: u64,
) -> anyhow::Result<Done> {
    let process = Process::Name("echo".to_owned());
    let pid = mailbox.pid.clone();
    let ask = |number: u64| node.send(echo, &pid, &process, tuple([pid.clone().into(), uint(number)]));
    let (began, cpu_before) = (Instant::now(), cpu("self")?);
    let until = began + Duration::from_millis(round_ms);
    for number in 1..=in_flight {
        ask(number.into())?;
    }
    let mut round_trips = 0_u32;
    loop {
        let number = number(mailbox).await?;
        ask(number)?;
        round_trips += 1;
        if round_trips % 100 == 1 && Instant::now() >= until {
            break;
        }
    }
    let (took, cpu) = (began.elapsed(), cpu("self")? - cpu_before);
    for _ in 0..in_flight {
        number(mailbox).await?;
    }
    Ok(Done { round_trips, took, cpu })
}

async fn number(mailbox: &mut Mailbox) -> anyhow::Result<u64> {
    Ok(etf::read_u64(&answer(mailbox).await?, "number")?)
}

async fn from_beam(
    node: &Node,
    mailbox: &mut Mailbox,
    asker: &str,
    echo: &str,
    in_flight: u32,
    round_ms: u64,
) -> anyhow::Result<Done> {
    let pid = mailbox.pid.clone();
    let request = tuple([atom("measure"), pid.clone().into(), atom(echo), uint(in_flight.into()), uint(round_ms)]);
    node.send(asker, &pid, &Process::Name("measure".to_owned()), request)?;
    let answer = answer(mailbox).await?;
    let [count, took_us] = etf::read_tuple(&answer, "figures")?;
    let round_trips = u32::try_from(etf::read_u64(count, "count")?)?;
    let took = Duration::from_micros(etf::read_u64(took_us, "took")?);
    Ok(Done { round_trips, took, ..Done::default() })
}

async fn answer(mailbox: &mut Mailbox) -> anyhow::Result<etf::Term> {
    loop {
        match timeout(SOON, mailbox.receive()).await.context("no answer")? {
            Some(Inbound::Message(delivery)) => return Ok(delivery.payload.decode()?),
            Some(Inbound::PeerUp { .. }) => {}
            other => anyhow::bail!("instead of an answer: {other:?}"),
        }
    }
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn table(rows: &[RoundTrips]) -> String {
    let mut text = "Round trips a second with a BEAM process (median of rounds, in turn)\n".to_owned();
    text.push_str("transport  in flight  from Rust  from a BEAM  ratio  CPU us Rust  CPU us BEAM\n");
    for row in rows {
        let RoundTrips { transport, in_flight, rust_median, beam_median, ratio, rust_cpu_us, beam_cpu_us, .. } = row;
        text.push_str(&format!(
            "{transport:9}  {in_flight:9}  {rust_median:9.0}  {beam_median:11.0}  {ratio:5.2}  {rust_cpu_us:11.1}  {beam_cpu_us:11.1}\n"
        ));
    }
    text
}
