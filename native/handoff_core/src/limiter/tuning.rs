//! The numbers that the search for the knee goes by (`knee`). Where they come from: the top of `limiter.rs`.

/// Where a drain starts, if the ceiling allows: half or twice the slots of most small stores, and eight attempts make a
/// measurement in one round trip.
pub(super) const START: u32 = 8;

/// The first two steps of a climb. A step that overshoots lengthens every gap by itself; a quarter stays far below what
/// would show in the slowest percent, and is still four times what eight attempts can tell apart.
pub(super) const CAREFUL: f64 = 1.25;
pub(super) const CAREFUL_STEPS: u32 = 2;
/// All further steps. Doubling would reach 50 in one round trip less, and cost a gap twice as long for an unlucky knee.
pub(super) const BRISK: f64 = 1.5;

/// Share of a step's latency growth up to which a step counts as free, and the climb goes on.
pub(super) const FREE: f64 = 0.15;
/// Above this share a step costs more than it brings, throughput over latency (Kleinrock's power) falls: go back.
pub(super) const TOO_DEAR: f64 = 0.5;

/// How far up to look for more from where the knee was: so little that it does not show in the slowest percent.
pub(super) const PROBE_UP: f64 = 1.125;
/// How far down to look for the queue. A probe down costs throughput only, 30 % for two round trips.
pub(super) const PROBE_DOWN: f64 = 0.7;
/// How far down when a first step has failed, so that it is not known whether even the start was above the knee.
pub(super) const PROBE_DOWN_BLIND: f64 = 0.6;
/// How far down when a probe down has shown nothing but queue.
pub(super) const HALVE: f64 = 0.5;
/// The furthest drop at once, however bad the latency looks.
pub(super) const QUARTER: f64 = 0.25;
/// Latency falls less than this when there was no queue.
pub(super) const NO_QUEUE: f64 = 1.05;
/// With this share of a drop's possible fall or more there was nothing but queue: the knee is further down.
pub(super) const ALL_QUEUE: f64 = 0.75;

/// A limit that was learnt is held to be right up to this ratio of the latencies: processors are not as busy each time.
pub(super) const SAME: f64 = 1.5;

/// Small stores serve fewer than this at a time.
pub(super) const FEW: u32 = 2 * START;

/// Latency at an unchanged limit that is this much longer or shorter than usual is a change of the store, not noise.
pub(super) const SLOWER: f64 = 1.2;
pub(super) const FASTER: f64 = 0.95;
/// More stalls of the machine than this make no decision slower.
pub(super) const MOST_STALLS: u32 = 2;
/// A queue grows and falls in step with the limit. What exceeds that by this part was something else.
pub(super) const IMPOSSIBLE: f64 = 0.1;
/// Attempts that are as short as this, in microseconds, are worth no search for fewer than the first limit: processors are used
/// better with more at a time.
pub(super) const SHORT: f64 = 20_000.0;
/// Attempts that last this long, in microseconds, hardly wait for a queue: that store would serve fewer than thirty requests a
/// second. A drain cannot afford ten generations of them.
pub(super) const LONG: f64 = 1_000_000.0;
/// A step of such a climb, after a step by half has shown no queue at all, or a look at the store has.
pub(super) const LONG_STEP: f64 = 2.0;
/// One pause more or less (three instead of two) changes the latency of such attempts up to this.
pub(super) const PAUSES: f64 = 1.75;
/// A first measurement that much longer than the next, at a higher limit, was of a cold start.
pub(super) const COLD: f64 = 0.95;

/// Noise below this fraction of a measurement changes no decision; above it a second look is taken.
pub(super) const CLEAR: f64 = 0.04;
/// How many attempts a second look may take.
pub(super) const LOOK_CLOSER: usize = 20;
/// The least spread of an attempt that is believed: equal latencies in a few attempts prove nothing.
pub(super) const LEAST_SPREAD: f64 = 0.03;
/// How much a trimmed mean is less certain than a mean.
pub(super) const TRIMMING: f64 = 1.15;
/// Weight of a new measurement in the running spread.
pub(super) const SPREAD_WEIGHT: f64 = 0.3;

/// Generations of attempts between probes: at first, and at most after probes that found nothing.
pub(super) const FIRST_WAIT: u32 = 2;
pub(super) const LONGEST_WAIT: u32 = 16;
/// At a limit that was learnt and is confirmed: should the store serve more by now, that is soon found out.
pub(super) const WAIT_LEARNT: u32 = 4;
/// At the ceiling, reached without ever meeting a queue, only a change of the store can make a probe worth it.
pub(super) const WAIT_AT_CEILING: u32 = 8;

/// After a step up, attempts that started this fraction of a latency before it count as started after it: in the bursts in which
/// attempts end and start, most of a generation starts an instant before the decision that their predecessors allowed.
pub(super) const FRESH: f64 = 0.1;

/// Near a limit that was refused: there only single steps, after a wait.
pub(super) const NEAR_WALL: f64 = 0.8;
/// Cuts end here: two attempts tell as much as one, and one that hangs does not stop everything.
pub(super) const LOWEST_CUT: u32 = 2;
