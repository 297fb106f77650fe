//! A drain's configuration, in the same shape in which the library gives it to the embedded engine.
//!
//! Guarantee: types and counts are checked here; ranges and cross-field rules are the engine's ([`Config::validate`]).

use etf::{
    Error, Fields, Term, atom, atom_name, choice, elements, float, int, list, map, optional, read_choice, read_each,
    read_f64, read_i64, read_text, read_u32, read_u64, text, tuple, uint,
};
use handoff_core::config::{Prefer, StickyLevel, StickyPolicy};
use handoff_core::limiter::Concurrency;
use handoff_core::{Config, Source};

/// More distinct signatures than this are a mistake: there is about one for each callback module.
pub const MAX_STICKIES: usize = 10_000;
/// The engine takes at most so many levels.
const MAX_LEVELS: usize = 64;

const CONCURRENCY: [(&str, Concurrency); 2] = [("adaptive", Concurrency::Adaptive), ("fixed", Concurrency::Fixed)];
const STICKY: [(&str, StickyPolicy); 3] =
    [("gated", StickyPolicy::Gated), ("any_level", StickyPolicy::AnyLevel), ("ignore", StickyPolicy::Ignore)];
const PREFER: [(&str, Prefer); 2] = [("new_release", Prefer::NewRelease), ("none", Prefer::None)];

pub(crate) fn write(config: &Config) -> Term {
    map([
        ("max_concurrency", uint(config.max_concurrency.into())),
        ("concurrency", choice(&config.concurrency, &CONCURRENCY)),
        ("max_concurrency_per_target", optional(config.max_concurrency_per_target.map(|cap| uint(cap.into())))),
        ("timeout_ms", uint(config.timeout_ms)),
        ("attempt_timeout_ms", uint(config.attempt_timeout_ms)),
        ("max_attempts", uint(config.max_attempts.into())),
        ("max_consecutive_failures", uint(config.max_consecutive_failures.into())),
        ("max_failure_ratio", float(config.max_failure_ratio)),
        ("wait_for_target_ms", uint(config.wait_for_target_ms)),
        ("wait_for_lost_ms", uint(config.wait_for_lost_ms)),
        ("sticky", choice(&config.sticky, &STICKY)),
        ("prefer", choice(&config.prefer, &PREFER)),
        ("source", write_source(&config.source)),
        ("stickies", list(config.stickies.iter().map(|levels| write_signature(levels)))),
        ("modules", uint(config.modules.into())),
        ("max_age_ms", int(config.max_age_ms)),
        ("future_skew_ms", int(config.future_skew_ms)),
    ])
}

pub(crate) fn read(term: &Term, field: &'static str) -> Result<Config, Error> {
    let fields = Fields::of(term, field)?;
    Ok(Config {
        max_concurrency: fields.need("max_concurrency", read_u32)?,
        concurrency: fields.need("concurrency", |term, key| read_choice(term, key, &CONCURRENCY))?,
        max_concurrency_per_target: fields.maybe("max_concurrency_per_target", read_u32)?,
        timeout_ms: fields.need("timeout_ms", read_u64)?,
        attempt_timeout_ms: fields.need("attempt_timeout_ms", read_u64)?,
        max_attempts: fields.need("max_attempts", read_u32)?,
        max_consecutive_failures: fields.need("max_consecutive_failures", read_u32)?,
        max_failure_ratio: fields.need("max_failure_ratio", read_f64)?,
        wait_for_target_ms: fields.need("wait_for_target_ms", read_u64)?,
        // Added by a later release.
        wait_for_lost_ms: fields.maybe("wait_for_lost_ms", read_u64)?.unwrap_or(0),
        sticky: fields.need("sticky", |term, key| read_choice(term, key, &STICKY))?,
        prefer: fields.need("prefer", |term, key| read_choice(term, key, &PREFER))?,
        source: fields.need("source", read_source)?,
        stickies: fields.need("stickies", |term, key| read_each(term, key, MAX_STICKIES, read_signature))?,
        modules: fields.need("modules", read_u32)?,
        max_age_ms: fields.need("max_age_ms", read_i64)?,
        future_skew_ms: fields.need("future_skew_ms", read_i64)?,
    })
}

fn write_source(source: &Source) -> Term {
    map([
        ("name", text(&source.name)),
        ("started_at_ms", optional(source.started_at_ms.map(int))),
        ("generation", optional(source.generation.as_deref().map(text))),
        ("region", optional(source.region.as_deref().map(text))),
    ])
}

fn read_source(term: &Term, field: &'static str) -> Result<Source, Error> {
    let fields = Fields::of(term, field)?;
    Ok(Source {
        name: fields.need("name", read_text)?,
        started_at_ms: fields.maybe("started_at_ms", read_i64)?,
        generation: fields.maybe("generation", read_text)?,
        region: fields.maybe("region", read_text)?,
    })
}

fn write_signature(levels: &[StickyLevel]) -> Term {
    let level = |level: &StickyLevel| match level {
        StickyLevel::Env { name, value, delay_ms } => {
            tuple([atom("env"), text(name), optional(value.as_deref().map(text)), uint(*delay_ms)])
        }
        StickyLevel::Any { delay_ms } => tuple([atom("any"), uint(*delay_ms)]),
    };
    list(levels.iter().map(level))
}

fn read_signature(term: &Term) -> Result<Vec<StickyLevel>, Error> {
    read_each(term, "stickies", MAX_LEVELS, |level| match elements(level) {
        Some([kind, name, value, delay]) if atom_name(kind) == Some("env") => Ok(StickyLevel::Env {
            name: read_text(name, "sticky variable")?,
            value: match atom_name(value) {
                Some("nil") => None,
                _ => Some(read_text(value, "sticky value")?),
            },
            delay_ms: read_u64(delay, "sticky delay")?,
        }),
        Some([kind, delay]) if atom_name(kind) == Some("any") => {
            Ok(StickyLevel::Any { delay_ms: read_u64(delay, "sticky delay")? })
        }
        _ => Err(Error::Field { field: "stickies", takes: "{env, Name, Value, DelayMs} or {any, DelayMs}" }),
    })
}
