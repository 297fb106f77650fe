//! `gen_server` calls, outgoing and incoming.
//!
//! Guarantee: a monitor is set before the request is sent, so an absent callee is noticed at once and not at
//! the deadline. A call that is given up leaves no entry behind, and its late reply is dropped.

use std::collections::HashMap;
use std::sync::Arc;

use erl_dist::message::{AliasSend, Message};
use etf::{Checked, Pid, Reference, Term, atom, atom_name, pid, tuple};
use tokio::sync::oneshot;

use super::queue::SendError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    #[error("not connected")]
    NotConnected,
    #[error("the callee is gone: {reason}")]
    Down { reason: String },
    #[error("no answer in time")]
    Timeout,
    #[error("an answer of another shape")]
    Shape,
    #[error("{source}")]
    Send {
        #[from]
        source: SendError,
    },
}

/// A call that a process of this node received.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub from: Pid,
    tag: Term,
    pub body: Term,
}

impl Request {
    /// Reads a message of the shape `{'$gen_call', {Pid, Tag}, Body}`.
    pub fn read(message: Term) -> Option<Request> {
        let [kind, from, body] = etf::elements(&message)? else {
            return None;
        };
        let [caller, tag] = etf::elements(from)? else {
            return None;
        };
        (atom_name(kind) == Some("$gen_call"))
            .then(|| Some(Request { from: pid(caller)?.clone(), tag: tag.clone(), body: body.clone() }))?
    }

    /// The alias to reply to. The tag is then `[alias | Reference]`, or a list that begins with that pair.
    fn alias(&self) -> Option<&Reference> {
        fn of(tag: &Term) -> Option<&Reference> {
            match tag {
                Term::ImproperList(list) => match (&list.elements[..], &*list.last) {
                    ([name], Term::Reference(alias)) if atom_name(name) == Some("alias") => Some(alias),
                    ([first, ..], _) => of(first),
                    _ => None,
                },
                _ => None,
            }
        }
        of(&self.tag)
    }

    pub(super) fn reply(self, own: &Pid, answer: Term) -> Message {
        let alias = self.alias().cloned();
        let message = tuple([self.tag, answer]);
        match alias {
            Some(alias) => Message::AliasSend(AliasSend { from_pid: own.clone(), alias, message }),
            None => Message::send(self.from, message),
        }
    }

    /// The message of a call to another node. The callee replies to `from` and repeats the tag.
    pub(super) fn write(from: &Pid, tag: Term, body: Term) -> Term {
        tuple([atom("$gen_call"), tuple([from.clone().into(), tag]), body])
    }
}

/// The result of a call.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(Checked<'static>),
    /// The callee or the connection has ended, with the reason.
    Down(String),
}

/// Calls in flight, by the id of the pid that receives the reply.
#[derive(Debug, Default)]
pub(super) struct Calls(HashMap<u32, Waiter>);

#[derive(Debug)]
struct Waiter {
    peer: Arc<str>,
    answer: oneshot::Sender<Answer>,
}

impl Calls {
    pub(super) fn begin(&mut self, call: u32, peer: Arc<str>) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        self.0.insert(call, Waiter { peer, answer });
        receiver
    }

    pub(super) fn remove(&mut self, call: u32) {
        self.0.remove(&call);
    }

    /// Whether a message of `peer` to that pid is the reply to a call in flight.
    pub(super) fn expects(&self, peer: &str, to: &Pid) -> bool {
        to.serial == 0 && self.0.get(&to.id).is_some_and(|waiter| *waiter.peer == *peer)
    }

    pub(super) fn answer(&mut self, call: u32, answer: Answer) {
        if let Some(waiter) = self.0.remove(&call) {
            let _given_up = waiter.answer.send(answer);
        }
    }

    /// Ends the calls to a peer whose connection has ended.
    pub(super) fn end_all_to(&mut self, peer: &str) {
        for (_, waiter) in self.0.extract_if(|_, waiter| *waiter.peer == *peer) {
            let _given_up = waiter.answer.send(Answer::Down("noconnection".to_owned()));
        }
    }
}
