//! The constants of the search for the knee (`knee`). `limiter.rs` says how they were chosen.

/// The first limit of a drain, if the ceiling allows. It is between half and twice the slots of most small
/// stores, and eight attempts give a measurement in one round trip.
pub(super) const START: u32 = 8;

/// The factor of the first two steps up. A step beyond the knee makes every gap longer by this factor. A
/// quarter is far below what would show in the slowest percent, and four times the difference that eight
/// attempts can show.
pub(super) const CAREFUL: f64 = 1.25;
pub(super) const CAREFUL_STEPS: u32 = 2;
/// The factor of all further steps. Doubling would reach 50 one round trip earlier, but could double the
/// gaps.
pub(super) const BRISK: f64 = 1.5;

/// Up to this growth of latency, as a part of the step, a step up counts as free and the next one follows.
pub(super) const FREE: f64 = 0.15;
/// Above this growth a step costs more than it gains (Kleinrock's power, throughput divided by latency,
/// falls), so it is undone.
pub(super) const TOO_DEAR: f64 = 0.5;

/// The factor of a probe upwards from the knee: so small that it does not show in the slowest percent.
pub(super) const PROBE_UP: f64 = 1.125;
/// The factor of a probe downwards. It costs only throughput: 30 % for two round trips.
pub(super) const PROBE_DOWN: f64 = 0.7;
/// The factor downwards if the first step up failed, because the starting limit itself may be above the knee.
pub(super) const PROBE_DOWN_BLIND: f64 = 0.6;
/// The factor downwards if a probe has shown that all of the latency removed was queueing.
pub(super) const HALVE: f64 = 0.5;
/// The lowest factor of a single step down, however high the latency is.
pub(super) const QUARTER: f64 = 0.25;
/// If latency falls by less than this factor, there was no queue.
pub(super) const NO_QUEUE: f64 = 1.05;
/// If latency falls by this part of the possible fall or more, all of it was queueing and the knee is further
/// down.
pub(super) const ALL_QUEUE: f64 = 0.75;

/// A learnt limit counts as confirmed up to this ratio of the latencies. It allows for processors that are
/// busier than before.
pub(super) const SAME: f64 = 1.5;

/// Stores that serve fewer requests than this at a time count as small.
pub(super) const FEW: u32 = 2 * START;

/// If latency at an unchanged limit rises or falls by these factors, the store has changed; less is noise.
pub(super) const SLOWER: f64 = 1.2;
pub(super) const FASTER: f64 = 0.95;
/// The number of machine stalls up to which each one delays decisions further.
pub(super) const MOST_STALLS: u32 = 2;
/// The delay of a queue is proportional to the limit. A change that exceeds this by more than this part has
/// another cause.
pub(super) const IMPOSSIBLE: f64 = 0.1;
/// For attempts shorter than this, in microseconds, no limit below the first one is tried: more parallel
/// attempts use the processors better.
pub(super) const SHORT: f64 = 20_000.0;
/// Attempts that take this long, in microseconds, may contain pauses: two writes that wait a second each take
/// two. A drain has no time for ten generations of them.
pub(super) const LONG: f64 = 1_900_000.0;
/// The factor of a step up for such attempts, once a first step has shown no queue.
pub(super) const LONG_STEP: f64 = 1.75;
/// The factor of the first step if a measurement of the store predicted short attempts.
pub(super) const PAUSED_STEP: f64 = 2.0;
/// A step by a smaller factor shows too little for that.
pub(super) const FIRST_STEP: f64 = 1.2;
/// One pause more or less (three instead of two) changes the latency of such attempts by up to this factor.
pub(super) const PAUSES: f64 = 1.75;
/// If the second measurement, at a higher limit, is below this part of the first one, the first one was of a
/// cold start.
pub(super) const COLD: f64 = 0.95;

/// Noise below this part of a measurement is ignored. Above it the measurement is extended.
pub(super) const CLEAR: f64 = 0.04;
/// The number of attempts up to which a measurement is extended.
pub(super) const LOOK_CLOSER: usize = 20;
/// The lowest spread that is assumed for an attempt, because a few equal latencies prove nothing.
pub(super) const LEAST_SPREAD: f64 = 0.03;
/// By this factor a trimmed mean is less certain than a mean.
pub(super) const TRIMMING: f64 = 1.15;
/// Weight of a new measurement in the running spread.
pub(super) const SPREAD_WEIGHT: f64 = 0.3;

/// Generations of attempts between probes: at first, and the maximum after probes that found nothing.
pub(super) const FIRST_WAIT: u32 = 2;
pub(super) const LONGEST_WAIT: u32 = 16;
/// The same at a learnt limit that was confirmed: short, in case the store can serve more now.
pub(super) const WAIT_LEARNT: u32 = 4;
/// The same at the ceiling, if no queue was met: a probe is useful only after a change of the store.
pub(super) const WAIT_AT_CEILING: u32 = 8;

/// After a step up, attempts that started up to this part of a latency before it count as started after it.
/// Attempts end and start in bursts, so most of a generation starts just before the decision.
pub(super) const FRESH: f64 = 0.1;

/// Above this part of a limit at which attempts were refused, the limit rises only by single steps, after a
/// wait.
pub(super) const NEAR_WALL: f64 = 0.8;
/// The lowest limit of a cut. With two attempts, one that hangs does not stop everything.
pub(super) const LOWEST_CUT: u32 = 2;
