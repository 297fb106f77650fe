//! The events that nodes send to the driver.
//!
//! | term | event |
//! |---|---|
//! | `{hello, Token, Label}` | the first frame; checked before anything else is read |
//! | `{ready, Otp, Elixir, HostVersion, HostKind}` | the node's supervision tree is up |
//! | `{records, [{Moment, Key, Process, AtUs, Counter}]}` | moments of server processes |
//! | `{calls, Ok, Failed}` | the clients' calls so far |
//! | `{drained, AtUs, Executor, Moved, Total, Ended, NotStored, Lost}` | a drain of `durable_handoff` has ended there |
//! | `{shutdown, TookUs, DrawnUs}` | the shutdown of a supervisor continued: how long its drain delayed it, and for how long that was allowed |
//! | `{waited, Us}` | a call waited this long for its server |
//! | `{fallback, Reason}` | a fallback was used in a drain there |
//! | `{reply, Id, {ok, Term}}`, `{reply, Id, {error, Reason}}` | the answer to a command |

use etf::{Term, atom_name, elements, read_bytes, read_text, read_tuple, read_u64, read_value};
use serde::de::IgnoredAny;

use super::commands::read_all;
use crate::history::{Key, Moment};
use crate::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    pub otp: String,
    pub elixir: String,
    /// Version of the `durable_server` application.
    pub host_version: String,
    /// `stand-in` or `external`.
    pub host_kind: String,
}

/// A moment as a node sends it, without the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    pub moment: Moment,
    pub key: Key,
    pub process: String,
    /// The time in microseconds of the wall clock.
    pub at_us: u64,
    /// The server's counter, at its start and its stop.
    pub counter: u64,
}

/// The part of a drain's report that the driver needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// The time of the end in microseconds of the wall clock.
    pub at_us: u64,
    /// The executor that decided: `embedded` or `node`.
    pub executor: String,
    pub moved: u64,
    /// The servers to be moved.
    pub total: u64,
    /// `done`, or why the drain ended early.
    pub ended: String,
    /// Servers whose final write failed.
    pub not_stored: u64,
    /// Rust nodes that decided in it and were lost.
    pub lost: u64,
}

/// How long a drain delayed the shutdown of a supervisor, by its node's monotonic clock, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldUp {
    /// From when the shutdown reached the Drainer until it continued.
    pub took_us: u64,
    /// From when the shutdown reached the Drainer until the deadline that the library computed.
    pub drawn_us: u64,
}

impl HeldUp {
    /// How long after its deadline the shutdown continued; 0 if it was in time.
    pub fn late_us(self) -> u64 {
        self.took_us.saturating_sub(self.drawn_us)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Ready(Versions),
    Records(Vec<Reported>),
    Calls { ok: u64, failed: u64 },
    Drained(Drained),
    Shutdown(HeldUp),
    Fallback(String),
    Waited(u64),
    Reply { id: u64, answer: Result<Term, String> },
}

impl Event {
    pub fn read(term: &Term) -> Result<Self> {
        let (tag, rest) =
            elements(term).and_then(<[Term]>::split_first).ok_or_else(|| Error::protocol("an event is not a tuple"))?;
        Ok(match (atom_name(tag).unwrap_or_default(), rest) {
            ("ready", _) => {
                let (IgnoredAny, otp, elixir, host_version, host_kind) = read_value(term, "ready")?;
                Self::Ready(Versions { otp, elixir, host_version, host_kind })
            }
            ("records", [records]) => Self::Records(read_all(records, "records", read_record)?),
            ("calls", [ok, failed]) => Self::Calls { ok: read_u64(ok, "ok")?, failed: read_u64(failed, "failed")? },
            ("drained", _) => {
                let (IgnoredAny, at_us, executor, moved, total, ended, not_stored, lost) = read_value(term, "drained")?;
                Self::Drained(Drained { at_us, executor, moved, total, ended, not_stored, lost })
            }
            ("shutdown", [took_us, drawn_us]) => Self::Shutdown(HeldUp {
                took_us: read_u64(took_us, "took_us")?,
                drawn_us: read_u64(drawn_us, "drawn_us")?,
            }),
            ("fallback", [reason]) => Self::Fallback(read_text(reason, "reason")?),
            ("waited", [waited_us]) => Self::Waited(read_u64(waited_us, "waited_us")?),
            ("reply", [id, answer]) => {
                let [kind, value] = read_tuple(answer, "answer")?;
                let answer = match atom_name(kind) {
                    Some("ok") => Ok(value.clone()),
                    // A stack trace may be longer than other texts.
                    _ => Err(String::from_utf8_lossy(read_bytes(value, "reason")?).into_owned()),
                };
                Self::Reply { id: read_u64(id, "id")?, answer }
            }
            (other, _) => {
                return Err(Error::protocol(format!("no event is called {other} with {} elements", rest.len())));
            }
        })
    }
}

/// Reads the first frame. Returns the label of the node, which must know `token`.
pub fn read_hello(term: &Term, token: &str) -> Result<String> {
    let [tag, sent, label] = read_tuple(term, "hello")?;
    if atom_name(tag) != Some("hello") || read_text(sent, "token")? != token {
        return Err(Error::protocol("a connection without this run's token"));
    }
    Ok(read_text(label, "label")?)
}

fn read_record(term: &Term) -> Result<Reported, etf::Error> {
    let (moment, key, process, at_us, counter) = read_value(term, "record")?;
    Ok(Reported { moment, key, process, at_us, counter })
}

#[cfg(test)]
mod tests {
    use etf::{atom, list, text, tuple, uint};

    use super::*;

    #[test]
    fn moments_in_records_are_read() {
        let record = tuple([atom("init"), uint(7), text("<0.5.0>"), uint(1_760_000_000_000_000), uint(3)]);
        let event = Event::read(&tuple([atom("records"), list([record])])).unwrap();
        assert_eq!(
            event,
            Event::Records(vec![Reported {
                moment: Moment::Init,
                key: 7,
                process: "<0.5.0>".into(),
                at_us: 1_760_000_000_000_000,
                counter: 3
            }])
        );
    }

    #[test]
    fn the_event_of_an_ended_drain_has_its_executor() {
        let end = [atom("drained"), uint(7), text("node"), uint(90), uint(100), text("deadline"), uint(3), uint(1)];
        let event = Event::read(&tuple(end)).unwrap();
        let drained = Drained {
            at_us: 7,
            executor: "node".into(),
            moved: 90,
            total: 100,
            ended: "deadline".into(),
            not_stored: 3,
            lost: 1,
        };
        assert_eq!(event, Event::Drained(drained));
    }

    #[test]
    fn a_shutdown_after_its_deadline_has_its_delay() {
        let held_up = |took_us, drawn_us| {
            let event = Event::read(&tuple([atom("shutdown"), uint(took_us), uint(drawn_us)])).unwrap();
            let Event::Shutdown(held_up) = event else { panic!("{event:?}") };
            held_up.late_us()
        };
        assert_eq!([held_up(15_000_100, 15_000_000), held_up(400_000, 15_000_000)], [100, 0]);
    }

    #[test]
    fn a_reply_has_a_term_or_a_reason() {
        let reply = |kind, value| tuple([atom("reply"), uint(3), tuple([atom(kind), value])]);
        assert_eq!(Event::read(&reply("ok", uint(1))).unwrap(), Event::Reply { id: 3, answer: Ok(uint(1)) });
        let refused = Event::read(&reply("error", text("no"))).unwrap();
        assert_eq!(refused, Event::Reply { id: 3, answer: Err("no".into()) });
    }

    #[test]
    fn unknown_events_moments_and_lengths_are_errors() {
        for term in [
            tuple([]),
            atom("ready"),
            tuple([atom("ready"), text("25")]),
            tuple([atom("reboot")]),
            tuple([atom("records"), list([tuple([atom("born"), uint(7), text("<0.5.0>"), uint(1), uint(0)])])]),
        ] {
            assert!(matches!(Event::read(&term), Err(Error::Protocol { .. })), "{term}");
        }
    }

    #[test]
    fn a_connection_without_the_token_is_refused() {
        let hello = |token| tuple([atom("hello"), text(token), text("node1")]);
        assert_eq!(read_hello(&hello("secret"), "secret").unwrap(), "node1");
        assert!(read_hello(&hello("guess"), "secret").is_err());
    }
}
