//! The constants of the search for the knee (`knee`). `limiter.rs` says how they were chosen.

/// The first limit of a drain that knows nothing of its store. Derived: fewer than one in a hundred of 500
/// servers pay for it even on one slot, and three attempts are the fewest that show on two slots that one
/// waits for another.
pub(super) const FIRST: u32 = 3;
/// Below this limit the search is not slowed down by caution. Simulated: between half and twice the slots of
/// most small stores, and eight attempts give a measurement in one round trip.
pub(super) const START: u32 = 8;
/// The limit that follows if the first attempts did not wait for one another. Derived: the first careful step
/// from [`START`], because [`FIRST`] with no queue shows as much as [`START`] with none.
pub(super) const OPEN: f64 = 10.0;
/// The same for attempts of [`LONG`]. Simulated: with ten, starts on slow stores of four slots take longer
/// than their callers wait.
pub(super) const OPEN_LONG: f64 = 9.0;
/// Attempts that differ by less than this part (standard deviation) ended together. Derived: three moves of
/// three or more requests each on two slots, which serve them in order, differ by 0.1; with 2 ms of jitter on
/// requests of 10 ms, moves that do not wait differ by 0.03.
pub(super) const TOGETHER: f64 = 0.054;
/// Attempts that differ by more than this have another reason than a queue of three. Derived, in the same
/// way: at most 0.17.
pub(super) const WIDE: f64 = 0.2;
/// The fastest attempts at a higher limit take less than this part of the time of the first ones if those were
/// of a cold start. They take at most its inverse if later attempts differ from one another because of
/// their targets. Simulated.
pub(super) const COLDER: f64 = 0.85;
/// A step by more than this factor gives the knee more exactly than its cost. Derived: above all other
/// steps up that may follow a measurement at once, except for long and short attempts.
pub(super) const FAR: f64 = 1.6;

/// The factor of the first two steps up. A step beyond the knee makes every gap longer by this factor. A
/// quarter is far below what would show in the slowest percent, and four times the difference that eight
/// attempts can show.
pub(super) const CAREFUL: f64 = 1.25;
pub(super) const CAREFUL_STEPS: u32 = 2;
/// The factor of all further steps. Doubling would reach 50 one round trip earlier, but could double the
/// gaps.
pub(super) const BRISK: f64 = 1.5;

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

/// A learnt limit counts as confirmed up to this ratio of the latencies, and a learnt knee down to its inverse. It
/// allows for processors that are busier, or less busy, than before.
pub(super) const SAME: f64 = 1.5;

/// Stores that serve fewer requests than this at a time count as small.
pub(super) const FEW: u32 = 2 * START;

/// A gap of this length, in microseconds, is hardly noticed. Up to it the limit rises even if attempts then wait
/// for one another, because a drain is faster and costs less processor time with more of them: processes wake
/// up for several messages at once. Measured on two cores and a store without latency (`bench drain
/// --concurrency fixed`): with 10, 20, 32 and 50 moves at a time gaps of 6, 11, 15 and 21 ms, and 1.36, 1.12,
/// 1.02 and 0.92 times the processor time of a task stream. A move on a store that needs
/// 10 ms a request takes longer, so such a store keeps its shortest gaps.
pub(super) const SHORT: f64 = 32_000.0;
/// The largest step up towards [`SHORT`]. Some stores (a directory) serve requests more slowly the more there are,
/// so a larger step could end far above it before a measurement shows that.
pub(super) const SHORT_STEP: f64 = 2.0;
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

/// After a step up, attempts that started up to this part of a latency before it count as started after it.
/// Attempts end and start in bursts, so most of a generation starts just before the decision.
pub(super) const FRESH: f64 = 0.1;

/// Above this part of a limit at which attempts were refused, the limit rises only by single steps, after a
/// wait.
pub(super) const NEAR_WALL: f64 = 0.8;
/// The lowest limit of a cut. With two attempts, one that hangs does not stop everything.
pub(super) const LOWEST_CUT: u32 = 2;
