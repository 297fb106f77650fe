//! One connection: a task that reads, a task that writes.
//!
//! Guarantee: the reader never waits for the recipient of a message, only until the peer's own allowance of
//! unhandled bytes has room. The writer's queue is bounded in bytes, and the writer sends a tick when it has
//! sent nothing else for [`TICK_EVERY`]. A peer that sends nothing, or reads nothing, for the tick time is
//! dropped.
//!
//! Our ticks are frequent enough for any peer with a tick time of eight seconds or more. A peer that is
//! silent for half of our tick time, because it ticks less often, is pinged.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::cause::Cause;
use super::control::{self, ControlError};
use super::frame::{self, Frame, FrameError};
use super::handshake::Peer;
use super::node::Node;
use super::peers::NotTaken;
use super::queue::{self, Frames};
use super::signals::{self, Reading};
use super::troubles::Origin;
use crate::metrics::Metrics;

const BUFFER: usize = 64 * 1024;
/// The most bytes that are written before a flush. After the flush they no longer count as queued.
const BATCH: usize = 256 * 1024;
/// The longest time between ticks: a quarter of the shortest `net_ticktime` that a peer may have (8 s). A
/// BEAM checks four times in that period, and drops a peer that sent nothing between all four checks.
pub const TICK_EVERY: Duration = Duration::from_secs(2);

/// Takes over a stream after its handshake. `id` orders the connections of one peer: see [`Node::attach`].
/// The stream is closed when it is [`NotTaken`].
pub(super) fn start<S>(node: &Node, stream: S, peer: &Peer, id: u64) -> Result<(), NotTaken>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let limits = node.options().limits.clone();
    let (queue, frames) = queue::queue(limits.write_queue);
    let (name, end) = node.attach(peer, id, queue).inspect_err(|why| {
        if let Some(repeated) = node.note_mistake(&peer.name.to_string(), why.label()) {
            warn!(peer = %peer.name, %why, repeated, "connection refused");
        }
        Metrics::count(&node.options().metrics.dropped, why.label());
    })?;
    let (read_half, write_half) = tokio::io::split(stream);
    let reading = Reading::new(node, &name, id);
    let node = node.clone();
    tokio::spawn(async move {
        let writing = write(write_half, frames, limits.tick_time);
        let why = tokio::select! {
            () = end.cancelled() => None,
            why = read(&reading, read_half, &end) => why,
            why = writing => why,
        };
        if let Some(reason) = why {
            Metrics::count(&node.options().metrics.dropped, reason);
            info!(peer = %name, reason, "connection ended");
        }
        end.cancel();
        node.detach(&name, id);
    });
    Ok(())
}

/// Reads until the connection ends. Returns why the peer was dropped, or `None` when the peer closed.
async fn read<R: AsyncRead + Unpin>(reading: &Reading, half: R, end: &CancellationToken) -> Option<&'static str> {
    let limits = &reading.node.options().limits;
    let metrics = &reading.node.options().metrics;
    let mut reader = BufReader::with_capacity(BUFFER, half);
    let mut buffer = Vec::new();
    let half = limits.tick_time / 2;
    let mut ticks = Ticks::default();
    while !end.is_cancelled() {
        let mut next = pin!(frame::read(&mut reader, &mut buffer, limits.max_frame));
        let read = match timeout(half, &mut next).await {
            Err(_) => {
                ask_for_sign_of_life(reading, half);
                timeout(half, next).await
            }
            in_time => in_time,
        };
        let message = match read {
            Err(_) => return Some("silent"),
            Ok(Err(FrameError::Io { source })) => {
                debug!(peer = %reading.peer, %source, "connection closed");
                if let Some(interval) = ticks.shortest.filter(|interval| *interval < TICK_EVERY / 2) {
                    let why = TooShort { tick_time: interval * 4 };
                    reading.node.troubles().note(&reading.peer, Cause::TickTime, &why, Origin::Found);
                }
                return None;
            }
            Ok(Err(error)) => {
                warn!(peer = %reading.peer, %error, "stream out of step");
                let kind = if matches!(error, FrameError::TooLong { .. }) { "frame_too_long" } else { "frame_type" };
                Metrics::count(&metrics.refused, kind);
                return Some(kind);
            }
            Ok(Ok(Frame::Tick)) => {
                ticks.tick();
                continue;
            }
            Ok(Ok(Frame::Message(message))) => {
                ticks.last = None;
                message
            }
        };
        match control::parse(message) {
            Ok((control, payload)) => signals::handle(reading, control, payload).await,
            Err(error) => {
                refused(reading, &error);
                if error.is_malformed() {
                    return Some("malformed");
                }
            }
        }
    }
    None
}

/// The peer ends the connection because this node ticks too rarely for the peer's tick time.
#[derive(Debug, thiserror::Error)]
#[error("it ended the connection; by its ticks, its net_ticktime is about {} s, takes 8 s or more", tick_time.as_secs_f32())]
struct TooShort {
    tick_time: Duration,
}

/// Measures the time between a peer's ticks. A peer that sends nothing else ticks four times per tick time.
#[derive(Debug, Default)]
struct Ticks {
    last: Option<Instant>,
    shortest: Option<Duration>,
}

impl Ticks {
    fn tick(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let interval = now - last;
            self.shortest = Some(self.shortest.map_or(interval, |shortest| shortest.min(interval)));
        }
    }
}

/// Pings the peer as `Node.ping` does. Its answer counts like any other frame.
fn ask_for_sign_of_life(reading: &Reading, at_most: Duration) {
    let (node, peer) = (reading.node.clone(), Arc::clone(&reading.peer));
    tokio::spawn(async move {
        let question = etf::tuple([etf::atom("is_auth"), etf::atom(&node.name())]);
        let answer = node.call(&peer, "net_kernel", question, at_most).await;
        debug!(%peer, answered = answer.is_ok(), "asked for a sign of life");
    });
}

fn refused(reading: &Reading, error: &ControlError) {
    Metrics::count(&reading.node.options().metrics.refused, error.label());
    if let Some(repeated) = reading.node.note_mistake(&reading.peer, error.label()) {
        warn!(peer = %reading.peer, %error, repeated, "message refused");
    }
}

/// Writes until the connection ends. Returns the reason why the peer was dropped, or `None` when the peer
/// closed. When the queue is closed, the remaining frames are written and the stream is shut down: the peer
/// then closes the connection, and the reader notices.
async fn write<W: AsyncWrite + Unpin>(half: W, mut queue: Frames, tick_time: Duration) -> Option<&'static str> {
    let tick_every = TICK_EVERY.min(tick_time / 4);
    let mut writer = BufWriter::with_capacity(BUFFER, half);
    loop {
        let first = match timeout(tick_every, queue.frames.recv()).await {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => {
                return match timeout(tick_time, writer.shutdown()).await {
                    Ok(Ok(())) => std::future::pending().await,
                    Ok(Err(_closed)) => None,
                    Err(_) => Some("does_not_read"),
                };
            }
            Err(_) => None,
        };
        let batch = async {
            match first {
                None => writer.write_all(&[0; 4]).await?,
                Some(frame) => {
                    let mut next = Some(frame);
                    let mut written = 0;
                    while let Some(frame) = next {
                        writer.write_all(&frame).await?;
                        written += frame.len();
                        next = (written < BATCH).then(|| queue.frames.try_recv().ok()).flatten();
                    }
                    writer.flush().await?;
                    queue.written(written);
                    return Ok(());
                }
            }
            writer.flush().await
        };
        match timeout(tick_time, batch).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return None,
            Err(_) => return Some("does_not_read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::calls::Request;
    use super::super::control::Control;
    use super::super::limits::Limits;
    use super::super::testing::{PEER, connect, node};
    use super::*;

    // Time is paused and advances only when every task waits, so only a bug can delay a tick.

    #[tokio::test(start_paused = true)]
    async fn ticks_are_frequent_enough_for_a_tick_time_of_eight_seconds_whatever_our_own_tick_time() {
        for (own, every) in [(3_600, 2_000), (60, 2_000), (8, 2_000), (4, 1_000)] {
            let node = node(Limits { tick_time: Duration::from_secs(own), ..Limits::default() });
            let (mut peer, taken) = connect(&node, PEER, 1);
            assert_eq!(taken, Ok(()));
            let began = Instant::now();
            for number in 1..=8 {
                let mut tick = [1; 4];
                peer.read_exact(&mut tick).await.expect("connected");
                assert_eq!((tick, began.elapsed().as_millis()), ([0; 4], number * every), "own tick time {own} s");
                peer.write_all(&[0; 4]).await.expect("connected");
            }
            assert_eq!(node.peers().len(), 1);
        }
    }

    /// A BEAM with a `net_ticktime` of 3600 s ticks every quarter of an hour, and answers pings.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_ticks_rarely_stays_connected_because_it_answers_pings() {
        let node = node(Limits { tick_time: Duration::from_secs(4), ..Limits::default() });
        let (mut peer, taken) = connect(&node, PEER, 1);
        assert_eq!(taken, Ok(()));
        let (began, mut asked) = (Instant::now(), 0);
        let mut buffer = Vec::new();
        while began.elapsed() < Duration::from_secs(901) {
            let Frame::Message(message) = frame::read(&mut peer, &mut buffer, 1_024).await.expect("connected") else {
                continue;
            };
            let (control, payload) = control::parse(message).expect("well formed");
            if let (Control::RegSend { from, to }, Some(payload)) = (control, payload) {
                assert_eq!(to, "net_kernel");
                let question = Request::read(payload.decode().expect("a term")).expect("a call");
                let answer = frame::build(|out| question.reply(&from, etf::atom("yes")).write_into(out));
                peer.write_all(&answer.expect("encodes")).await.expect("connected");
                asked += 1;
            }
        }
        assert_eq!((node.peers().len(), asked), (1, 450), "once each half of our own tick time");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_silent_for_the_tick_time_is_dropped() {
        let node = node(Limits::default());
        let tick_time = node.options().limits.tick_time;
        let (mut peer, taken) = connect(&node, PEER, 1);
        assert_eq!(taken, Ok(()));
        tokio::time::sleep(tick_time / 2).await;
        peer.write_all(&[0; 4]).await.expect("connected");
        let last = Instant::now();
        peer.read_to_end(&mut Vec::new()).await.expect("ticks, and the end");
        assert_eq!(last.elapsed(), tick_time);
        let said = node.options().metrics.render();
        assert!(said.contains("durable_handoff_peers_dropped_total{kind=\"silent\"} 1"), "{said}");
        assert!(node.peers().is_empty());
    }
}
